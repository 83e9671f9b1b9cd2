"""Report of a crawl and its judgement: whether done means complete."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from catlog_scrapy.plurals import counted


@dataclass
class Report:
    """Report of a worker on its crawl: the evidence for "done means complete".

    `accepted`, `rejected` and `dropped` count items; `failed_requests`, `blocked_by_robots`,
    `truncated`, `without_length` and `responses` count requests, `unreachable_robots` hosts.
    `raised` counts exceptions, `errors` has the text of the first ones.
    `is_permanent` says that another attempt would fail in the same way.
    `reasons` has the first message for each counter of failures. `cursor` is how far the crawl has
    read; `resumed` says that it started from an earlier cursor. `retry_after` is the delay in
    seconds that the source asked for.
    """

    reason: str = "finished"
    accepted: int = 0
    rejected: int = 0
    dropped: int = 0
    failed_requests: int = 0
    blocked_by_robots: int = 0
    truncated: int = 0
    without_length: int = 0
    unreachable_robots: int = 0
    responses: int = 0
    raised: int = 0
    errors: list[str] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    stats: dict[str, Any] = field(default_factory=dict)
    log: str | None = None
    cursor: str | None = None
    resumed: bool = False
    retry_after: float = 0.0
    is_permanent: bool = False

    def judge(self, limits: Mapping[str, Any], stored: int) -> tuple[str, str | None]:
        """Return the outcome under an attempt's *limits* and, unless it is `done`, the reason.

        *stored* is the number of the attempt's rows in the database.
        """
        shortfall = self._shortfall(limits.get("tolerate", {}))
        least = limits.get("min_results", 1)
        if self.raised:
            more = f" (and {self.raised - 1} more)" if self.raised > 1 else ""
            first = self.errors[0] if self.errors else "an exception without a message"
            return "failed", f"{first}{more}"
        if self.reason != "finished":
            return "failed", f"the spider closed with {self.reason!r}, not 'finished'"
        # A source with nothing new yields only a cursor, which counts as a result. A crawl from the
        # beginning must bring more than that.
        answers = self.accepted + (self.cursor is not None and self.resumed)
        if shortfall is None and answers < least:
            shortfall = (
                f"{counted(self.accepted, 'result')}, at least {least} expected;"
                f" {self._explain_few_results()}"
            )
        if shortfall is None and stored != self.accepted:
            shortfall = f"{counted(self.accepted, 'result')} accepted, but {stored} stored"
        return ("incomplete", shortfall) if shortfall else ("done", None)

    def _explain_few_results(self) -> str:
        if self.dropped:
            return f"the project's pipelines dropped {counted(self.dropped, 'item')}"
        if self.responses and not self.accepted:
            return (
                f"the spider found nothing in {counted(self.responses, 'response')}: a log-in page,"
                " changed pages or columns, or an empty source"
            )
        # An external executor has no statistics.
        if self.stats and not self.responses and not self.accepted:
            return (
                "nothing was requested; yield requests in `async def start(self)`, or set"
                " `start_urls`"
            )
        return "the source has little, or its pages or columns have changed"

    def has_gaps(self) -> bool:
        """Return whether requests failed, though the operation may tolerate it."""
        return bool(self.failed_requests or self.blocked_by_robots or self.truncated)

    def _shortfall(self, tolerate: Mapping[str, float]) -> str | None:
        """Describe the first counter that exceeds the operation's tolerance; the default is 0."""
        for name, noun, fate, count, others in (
            ("failed_requests", "request", "failed", self.failed_requests, self.responses),
            (
                "blocked_by_robots",
                "request",
                "blocked by robots.txt",
                self.blocked_by_robots,
                self.responses,
            ),
            ("truncated", "response", "truncated", self.truncated, self.responses),
            (
                "without_length",
                "response",
                "without a verifiable end",
                self.without_length,
                self.responses,
            ),
            (
                "unreachable_robots",
                "host",
                "without a reachable robots.txt",
                self.unreachable_robots,
                self.responses,
            ),
            ("rejected", "item", "rejected", self.rejected, self.accepted),
            ("dropped", "item", "dropped", self.dropped, self.accepted),
        ):
            # A DropItem of the project's own pipelines is intended, unless the operation limits it.
            tolerated = tolerate.get(name, 1.0 if name == "dropped" else 0)
            if exceeds(count, count + others, tolerated):
                first = self.reasons.get(name)
                return f"{counted(count, noun)} {fate}, tolerated {tolerated}" + (
                    f"; the first: {first}" if first else ""
                )
        return None


def exceeds(count: int, total: int, tolerated: float) -> bool:
    """Return whether *count* of *total* exceeds *tolerated*: an int is a count, a float a share."""
    return count > (tolerated * total if isinstance(tolerated, float) else tolerated)
