"""A claimed attempt while its crawl runs: what pipelines, middlewares and extension share."""

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextvars import copy_context
from weakref import WeakKeyDictionary

from scrapy.crawler import Crawler
from sqlalchemy import Engine

from catlog_scrapy.crawl.backpressure import Gate
from catlog_scrapy.records.record import Record
from catlog_scrapy.redaction import redact
from catlog_scrapy.store.queue.attempts import fail, release
from catlog_scrapy.store.queue.claims import Claim
from catlog_scrapy.store.queue.report import Report

# How many exceptions an attempt remembers in words; all are counted.
MAX_REPORTED_ERRORS = 5

# Why an attempt has to stop, where nobody says it better.
STOP_REASONS = {
    "cancel": "its catalog stopped",
    "lost": "its lease had ended, and another worker may have it",
    "release": "its worker stopped",
}


class Attempt:
    """What one crawl works for, and what has become of it so far.

    `stop_code` is why it has to stop (`cancel`, `lost`, `timed_out` or `release`), None while it
    may go on, `stop_reason` the same in words; `stopped_at` is when it was told so. `outcome` is
    how it ended, once the store has said so. `secrets` are those that its spider was given, by
    name. All moments are of `time.monotonic()`.

    `received` counts responses, for `progress` alone. `storing` counts what is on its way to the
    database; both change in the event loop only.
    """

    def __init__(self, engine: Engine, claim: Claim, records: tuple[type[Record], ...]) -> None:
        self.engine = engine
        self.claim = claim
        self.records = {record.kind: record for record in records}
        self.secrets: Mapping[str, str] = {}
        self.report = Report()
        self.gate = Gate()
        self.outcome: str | None = None
        self.error: str | None = None
        self.stop_code: str | None = None
        self.stop_reason = ""
        self.stopped_at = math.inf
        self.began_at = time.monotonic() - claim.age
        self.deadline = self.began_at + claim.seconds
        self.deadline_reason = f"it ran past its time limit of {claim.seconds:g} s"
        self.is_open = False
        self.received = 0
        self.storing = 0
        self._stopping = threading.Lock()
        self._recorded: deque[BaseException] = deque(maxlen=100)
        self._on_stop: Callable[[], object] | None = None

    def record_error(self, where: str, error: BaseException) -> None:
        """Note an exception of the crawl, once; *where* says raised it."""
        if any(error is recorded for recorded in self._recorded):
            return
        self._recorded.append(error)
        self.report.raised += 1
        if len(self.report.errors) < MAX_REPORTED_ERRORS:
            text = redact(f"{where}: {type(error).__name__}: {error}")
            self.report.errors.append(text[:2000])

    def record_failed_request(self, tolerance: str, reason: str) -> None:
        """Count a failed request under *tolerance*: `failed_requests` or `blocked_by_robots`."""
        setattr(self.report, tolerance, getattr(self.report, tolerance) + 1)
        self.report.reasons.setdefault(tolerance, redact(reason))

    def on_stop(self, close: Callable[[], None]) -> None:
        """Have *close* called, in the event loop of this call, when the crawl has to stop."""
        loop, context = asyncio.get_running_loop(), copy_context()
        self._on_stop = lambda: loop.call_soon_threadsafe(close, context=context)
        if self.stop_code:
            close()

    def progress(self) -> int:
        """Grows with every response and item; from any thread."""
        report = self.report
        return self.received + report.accepted + report.rejected + report.dropped

    def stop(self, code: str, reason: str = "") -> None:
        """Make the crawl stop, from any thread; the first *code* counts, with its *reason*."""
        with self._stopping:
            if self.stop_code is not None or self.outcome is not None:
                return
            self.stop_reason = reason or STOP_REASONS.get(code, self.deadline_reason)
            self.stop_code, self.stopped_at = code, time.monotonic()
        if self._on_stop:
            self._on_stop()

    def end_stopped(self, note: str = "") -> str:
        """Write down that it had to stop, and why, with a *note*; its outcome.

        A worker cannot tell a catalog that stopped from a lease that somebody else has: the store
        takes `cancelled` for `lost` where the catalog goes on. Raises what the store raises.
        """
        name, error = self.claim.attempt, f"{self.stop_reason}{note}"
        if self.stop_code == "release":
            return release(self.engine, name, self.report, error=f"released: {error}")
        outcome = "timed_out" if self.stop_code == "timed_out" else "cancelled"
        return fail(self.engine, name, error, outcome=outcome, report=self.report)


_attempts: WeakKeyDictionary[Crawler, Attempt] = WeakKeyDictionary()


def assign(crawler: Crawler, attempt: Attempt) -> None:
    """Make *crawler* run *attempt*. Before its crawl starts."""
    _attempts[crawler] = attempt


def attempt_of(crawler: Crawler) -> Attempt | None:
    """The attempt that *crawler* runs; None for a crawler that runs on its own."""
    return _attempts.get(crawler)


def running_attempt(crawler: Crawler) -> Attempt:
    """The attempt of a crawler that has one, for components that only then exist."""
    return _attempts[crawler]
