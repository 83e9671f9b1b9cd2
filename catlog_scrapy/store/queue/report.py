"""Report of a crawl and its judgement: whether done means complete."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from catlog_scrapy.wording import counted


@dataclass
class Report:
    """What a worker says of its crawl, and what the promise "done means complete" is judged by.

    `accepted`, `rejected` and `dropped` count items, `failed_requests`, `blocked_by_robots` and `responses`
    requests. `errors` are the first exceptions raised, `reasons` the first of what was given up,
    ignored or rejected, all in words; `raised` counts all exceptions. `cursor` is how far it read;
    it `resumed` from another one. `retry_after` how many seconds the source wants to be left alone.
    """

    reason: str = "finished"
    accepted: int = 0
    rejected: int = 0
    dropped: int = 0
    failed_requests: int = 0
    blocked_by_robots: int = 0
    responses: int = 0
    raised: int = 0
    errors: list[str] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    stats: dict[str, Any] = field(default_factory=dict)
    log: str | None = None
    cursor: str | None = None
    resumed: bool = False
    retry_after: float = 0.0

    def judge(self, limits: Mapping[str, Any], stored: int) -> tuple[str, str | None]:
        """The outcome and, where it is not `done`, the reason, under an attempt's *limits*.

        *stored* is how many rows of the attempt the database holds.
        """
        shortfall = self._shortfall(limits.get("tolerate", {}))
        least = limits.get("min_results", 1)
        if self.raised:
            more = f" (and {self.raised - 1} more)" if self.raised > 1 else ""
            first = self.errors[0] if self.errors else "an exception that nobody put in words"
            return "failed", f"{first}{more}"
        if self.reason != "finished":
            return "failed", f"the spider closed with {self.reason!r}, not 'finished'"
        # Of a source with nothing new, the cursor is the answer; from the beginning there is more.
        answers = self.accepted + (self.cursor is not None and self.resumed)
        if shortfall is None and answers < least:
            shortfall = (
                f"{counted(self.accepted, 'result')}, at least {least} expected;"
                " the source is empty or its markup changed"
            )
        if shortfall is None and stored != self.accepted:
            shortfall = f"{counted(self.accepted, 'result')} accepted, but {stored} stored"
        return ("incomplete", shortfall) if shortfall else ("done", None)

    def _shortfall(self, tolerate: Mapping[str, float]) -> str | None:
        """What exceeds what the operation tolerates; nothing is, unless it says so."""
        for name, noun, fate, count, others in (
            ("failed_requests", "request", "failed", self.failed_requests, self.responses),
            (
                "blocked_by_robots",
                "request",
                "blocked by robots.txt",
                self.blocked_by_robots,
                self.responses,
            ),
            ("rejected", "item", "rejected", self.rejected, self.accepted),
            ("dropped", "item", "dropped", self.dropped, self.accepted),
        ):
            # The project's own DropItem is intent, unless the operation limits it.
            tolerated = tolerate.get(name, 1.0 if name == "dropped" else 0)
            if exceeds(count, count + others, tolerated):
                first = self.reasons.get(name)
                return f"{counted(count, noun)} {fate}, tolerated {tolerated}" + (
                    f"; the first: {first}" if first else ""
                )
        return None


def exceeds(count: int, total: int, tolerated: float) -> bool:
    """Whether *count* of *total* is more than *tolerated*: an integer count, or a float share."""
    return count > (tolerated * total if isinstance(tolerated, float) else tolerated)
