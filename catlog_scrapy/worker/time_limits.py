"""How long an attempt may take: to open its spider, without progress, and in all."""

import time

from catlog_scrapy.crawl.attempt import Attempt


class TimeLimits:
    """Compares an attempt with its operation's `timeout`, `start_timeout` and `stall_timeout`.

    As precise as its looks are frequent: progress is noticed by counters that differ, so that no
    item and no response has to do anything for it. While the crawl waits for the database the
    source may be as quick as ever: that is no stall.
    """

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt
        self.start: float | None = attempt.claim.limits.get("start_timeout")
        self.stall: float | None = attempt.claim.limits.get("stall_timeout")
        self.progress = -1
        self.progressed_at = 0.0

    def exceeded(self) -> str | None:
        """Which limit the attempt is past, in words; None while it may go on."""
        attempt, now = self.attempt, time.monotonic()
        if now > attempt.deadline:
            return attempt.deadline_reason
        if attempt.claim.isolate:
            return None  # its own process looks after the others
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
