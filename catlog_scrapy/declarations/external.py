"""What an operation of an external executor cannot say."""

from collections.abc import Iterator

from catlog_scrapy.declarations.model import OperationTable
from catlog_scrapy.declarations.source import Location

# They say how a spider is run.
SPIDER_ONLY_FIELDS = ("isolate", "refresh", "spider", "stall_timeout", "start_timeout")
# An executor counts neither requests nor what it drops.
SPIDER_ONLY_TOLERANCES = ("dropped", "failed_requests", "blocked_by_robots")


def external_mistakes(operation: OperationTable) -> Iterator[tuple[Location, str]]:
    """What is for spiders alone: it would be believed, and do nothing. Where in the operation."""
    if operation.executor != "external":
        return
    for name in SPIDER_ONLY_FIELDS:
        if name in operation.model_fields_set:
            yield (name,), "is for spiders, not for an external executor; remove it"
    for name in SPIDER_ONLY_TOLERANCES:
        if name in operation.tolerate.model_fields_set:
            yield (
                ("tolerate", name),
                "is for spiders: an external executor says itself that it has failed; remove it",
            )
