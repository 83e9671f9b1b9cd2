"""Time limits of an attempt: until its spider opens, without progress, and in all."""

import time

from catlog_scrapy.crawl.attempt import Attempt


class TimeLimits:
    """Check of an attempt against its operation's `timeout`, `start_timeout` and `stall_timeout`.

    Each check compares counters of responses and items with the last check, so items and responses
    bear no cost. An attempt that waits for the database does not stall: its source may be fast.
    """

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt
        self.start: float | None = attempt.claim.limits.get("start_timeout")
        self.stall: float | None = attempt.claim.limits.get("stall_timeout")
        self.progress = -1
        self.progressed_at = 0.0

    def exceeded(self) -> str | None:
        """Return a message about the limit that the attempt exceeds, if any."""
        attempt, now = self.attempt, time.monotonic()
        if now > attempt.deadline:
            return attempt.deadline_reason
        if attempt.claim.isolate:
            return None  # the child process enforces the other limits
        if not attempt.is_open:
            if self.start is not None and now > attempt.began_at + self.start:
                return f"its spider had not opened after {self.start:g} s"
            return None
        progress = attempt.progress()
        if progress != self.progress or attempt.storing:
            self.progress, self.progressed_at = progress, now
        if self.stall is not None and now > self.progressed_at + self.stall:
            return f"nothing came for {self.stall:g} s (no response, no item)"
        return None
