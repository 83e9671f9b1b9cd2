"""Claimed attempt during its crawl, shared by pipelines, middlewares and the extension."""

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from scrapy.crawler import Crawler
from sqlalchemy import Engine

from catlog_scrapy.crawl.backpressure import Gate
from catlog_scrapy.crawl.truncated_response import TruncatedResponse
from catlog_scrapy.records.record import Record
from catlog_scrapy.redaction import redact
from catlog_scrapy.store.queue.attempts import fail, release
from catlog_scrapy.store.queue.claims import Claim
from catlog_scrapy.store.queue.report import Report

if TYPE_CHECKING:
    from catlog_scrapy.crawl.background_errors import BackgroundErrors
    from catlog_scrapy.crawl.item_order import ItemOrder

# Exceptions that a report quotes; the report counts all.
MAX_REPORTED_ERRORS = 5
MAX_ERROR_CHARS = 2000
# Reasons of the stop codes, for a caller that gives none.
STOP_REASONS = {
    "cancel": "its catalog stopped",
    "lost": "its lease had ended, and another worker may have it",
    "release": "its worker stopped",
}


class Attempt:
    """Claim of one crawl and the crawl's state.

    `stop_code` is None while the crawl may continue, then `cancel`, `lost`, `timed_out` or
    `release`; `stop_reason` is its text, `stopped_at` its time. `outcome` is the attempt's outcome
    as stored. `secrets` are the values of the spider's secrets by name. All times are of
    `time.monotonic()`.

    `order` keeps rows in the order of their items, once there is a writer of rows.

    `background` records exceptions that nobody awaits, once the spider has opened.

    `process_outputs` is the fast path of the crawl's items, if the crawl has one.

    `received` counts responses as they arrive and as they reach the spider, so it tells only
    progress and whether any has arrived. `storing` counts the running calls to the database. Both
    change only in the event loop.
    """

    def __init__(self, engine: Engine, claim: Claim, records: tuple[type[Record], ...]) -> None:
        self.engine = engine
        self.claim = claim
        self.records = {record.kind: record for record in records}
        self.secrets: Mapping[str, str] = {}
        self.report = Report()
        self.gate = Gate()
        self.order: ItemOrder | None = None
        self.outcome: str | None = None
        self.error: str | None = None
        self.stop_code: str | None = None
        self.stop_reason = ""
        self.stopped_at = math.inf
        self.began_at = time.monotonic() - claim.age
        self.deadline = self.began_at + claim.seconds
        self.deadline_reason = f"it ran past its time limit of {claim.seconds:g} s"
        self.is_open = False
        self.background: BackgroundErrors | None = None
        self.process_outputs: Callable[[AsyncIterator[Any]], AsyncIterator[Any]] | None = None
        self.received = 0
        self.storing = 0
        self._stopping = threading.Lock()
        self._recorded: deque[BaseException] = deque(maxlen=100)
        self._on_stop: Callable[[], object] | None = None

    def record_error(self, where: str, error: BaseException) -> None:
        """Add an exception to the report, once; *where* names the part that raised it.

        A truncated response counts as such, whoever asked for it.
        """
        if any(error is recorded for recorded in self._recorded):
            return
        self._recorded.append(error)
        if isinstance(error, TruncatedResponse):
            self.record_failed_request(error.tolerance, str(error))
            return
        self.report.raised += 1
        if len(self.report.errors) < MAX_REPORTED_ERRORS:
            text = redact(f"{where}: {type(error).__name__}: {error}")
            self.report.errors.append(text[:MAX_ERROR_CHARS])

    def record_failed_request(self, tolerance: str, reason: str) -> None:
        """Count a failed request under *tolerance*, a field of the report."""
        setattr(self.report, tolerance, getattr(self.report, tolerance) + 1)
        self.report.reasons.setdefault(tolerance, redact(reason))

    def tolerates(self, tolerance: str) -> bool:
        """Return whether the operation tolerates any failure that counts under *tolerance*."""
        return bool(self.claim.limits.get("tolerate", {}).get(tolerance))

    def on_stop(self, close: Callable[[], None]) -> None:
        """Call *close* in the current event loop as soon as the crawl has to stop."""
        loop, context = asyncio.get_running_loop(), copy_context()
        self._on_stop = lambda: loop.call_soon_threadsafe(close, context=context)
        if self.stop_code:
            close()

    def progress(self) -> int:
        """Return a counter that grows with every response and item; callable from any thread."""
        report = self.report
        return self.received + report.accepted + report.rejected + report.dropped

    def stop(self, code: str, reason: str = "") -> None:
        """Stop the crawl; callable from any thread. Only the first *code* and *reason* count."""
        with self._stopping:
            if self.stop_code is not None or self.outcome is not None:
                return
            self.stop_reason = reason or STOP_REASONS.get(code, self.deadline_reason)
            self.stop_code, self.stopped_at = code, time.monotonic()
        if self._on_stop:
            self._on_stop()

    def end_stopped(self, note: str = "") -> str:
        """End the attempt in the store as stopped, with a *note*, and return its outcome.

        A worker cannot distinguish a stopped catalog from a lost lease. The store changes
        `cancelled` to `lost` if the catalog is still loading.
        """
        name, error = self.claim.attempt, f"{self.stop_reason}{note}"
        if self.stop_code == "release":
            return release(self.engine, name, self.report, error=f"released: {error}")
        outcome = "timed_out" if self.stop_code == "timed_out" else "cancelled"
        return fail(self.engine, name, error, outcome=outcome, report=self.report)


_attempts: WeakKeyDictionary[Crawler, Attempt] = WeakKeyDictionary()
# Attempt in whose crawl the current code runs; tasks and calls of the event loop inherit it.
current_attempt: ContextVar[Attempt | None] = ContextVar("current_attempt", default=None)


def assign(crawler: Crawler, attempt: Attempt) -> None:
    """Assign *attempt* to *crawler* and to the current context, before its crawl starts."""
    _attempts[crawler] = attempt
    current_attempt.set(attempt)


def attempt_of(crawler: Crawler) -> Attempt | None:
    """Return the attempt of *crawler*; None for a crawl outside of catlog's queue."""
    return _attempts.get(crawler)


def running_attempt(crawler: Crawler) -> Attempt:
    """Return the attempt of *crawler*, for components that exist only in a crawl with one."""
    return _attempts[crawler]
