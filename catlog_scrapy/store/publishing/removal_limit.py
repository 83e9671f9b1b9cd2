"""Limit on the records that one load may remove."""

from collections.abc import Mapping

from catlog_scrapy.exceptions import PublishRefused
from catlog_scrapy.plurals import counted
from catlog_scrapy.store.queue.report import exceeds

# Share of an operation's records that a snapshot may remove unless `tolerate.removed` says more.
DEFAULT_MAX_REMOVED_SHARE = 0.5


def refuse_too_many_removals(
    operation: str,
    tolerate: Mapping[str, float],
    *,
    removed: int,
    present: int,
    is_snapshot: bool,
) -> None:
    """Raise PublishRefused if a load has *removed* too many of the *present* records.

    *present* counts the records before the load; *tolerate* says how many it may remove.
    """
    # Deletions that the source itself reports are not limited by default.
    default = DEFAULT_MAX_REMOVED_SHARE if is_snapshot else 1.0
    tolerated = tolerate.get("removed", default)
    if removed and exceeds(removed, present, tolerated):
        raise PublishRefused(
            f"{operation} would remove {removed} of {counted(present, 'record')}, tolerated"
            f" {tolerated}. If the source has deleted them, raise tolerate.removed, run"
            " scrapy apply and scrapy retry."
        )
