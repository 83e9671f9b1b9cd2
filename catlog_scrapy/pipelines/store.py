"""Storage pipeline: rows are sent to the database in batches, outside of the event loop."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

from scrapy.crawler import Crawler

from catlog_scrapy.crawl.attempt import Attempt, running_attempt
from catlog_scrapy.crawl.item_order import ItemOrder
from catlog_scrapy.db.engine import UNAVAILABLE, reason
from catlog_scrapy.exceptions import AttemptLost
from catlog_scrapy.pipelines.validate import Rejected
from catlog_scrapy.records.validation import Row, ValidatedItem
from catlog_scrapy.redaction import redact
from catlog_scrapy.store.queue.copy_format import RowPrefix, write_rows
from catlog_scrapy.store.queue.results import (
    MAX_REJECTED_ITEMS,
    BatchUncertain,
    copy_batch,
    settle_batch,
    store_rejected,
)

logger = logging.getLogger(__name__)

T = TypeVar("T")

# A batch is sent when it has reached either limit.
MAX_BATCH_ROWS = 10_000
MAX_BATCH_BYTES = 4 * 1024 * 1024
# Pause between two attempts to reach an unavailable database.
RETRY_INTERVAL_S = 0.5
# Characters of a rejected item that the report quotes.
MAX_QUOTED_CHARS = 200


class StorePipeline:
    """Pipeline that hands the rows of validated items to the attempt's writer."""

    def __init__(self, writer: "ResultWriter") -> None:
        self.writer = writer

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> "StorePipeline":
        """Make the pipeline of a crawl's attempt."""
        return cls(ResultWriter(running_attempt(crawler)))

    async def process_item(self, validated: ValidatedItem) -> Any:
        """Write the rows, and return the spider's item for `item_scraped`. Raises Rejected."""
        self.writer.order.put(validated.rows, validated.cursor)
        if validated.rejections:
            raise Rejected(validated.rejections)
        return validated.item


class ResultWriter:
    """Writer that numbers the rows of one attempt and sends them, one batch at a time.

    At most two batches are in memory: one is being sent, one is being filled. If the second is full
    before the first is stored, the writer closes the attempt's gate (backpressure).
    """

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt
        claim = attempt.claim
        untracked = {kind["name"]: kind["untracked"] for kind in claim.kinds}
        self.prefix = RowPrefix(claim.attempt, claim.provider_id, untracked)
        self.batch = bytearray()
        self.first = 0
        self.sending: asyncio.Task[None] | None = None
        self.kept_rejections = 0
        attempt.order = self.order = ItemOrder(self.write)

    def write(self, rows: list[Row], cursor: str | None = None) -> None:
        """Add *rows* to the batch. Raises the error of a former batch."""
        report = self.attempt.report
        report.cursor = cursor or report.cursor
        report.accepted = write_rows(self.batch, self.prefix, report.accepted, rows)
        if self._is_full():
            if self.sending and not self.sending.done():
                self.attempt.gate.close()
            else:
                self._raise_if_failed()
                self._send()

    def _is_full(self) -> bool:
        count = self.attempt.report.accepted - self.first
        return count >= MAX_BATCH_ROWS or len(self.batch) >= MAX_BATCH_BYTES

    async def finish(self) -> None:
        """Send the last batch and wait until all rows are stored. Raises the error of any batch."""
        self.order.close_all()
        await self._sent_all()
        if self.batch:
            self._send()
        await self._sent_all()

    async def _sent_all(self) -> None:
        while sending := self.sending:
            await sending
            if self.sending is sending:
                self.sending = None

    def _raise_if_failed(self) -> None:
        if self.sending and self.sending.done():
            error = self.sending.exception()
            if error:
                # The attempt has failed, so further rows only take up memory.
                self.batch, self.first = bytearray(), self.attempt.report.accepted
                raise error

    def _send(self) -> None:
        batch, first = self.batch, self.first
        self.batch, self.first = bytearray(), self.attempt.report.accepted
        count = self.first - first
        self.sending = asyncio.create_task(
            run_in_thread(self.attempt, lambda: self._store(batch, first, count))
        )
        self.sending.add_done_callback(self._on_sent)

    def _on_sent(self, sending: "asyncio.Task[None]") -> None:
        """Send the next batch if it is full by now, and open the gate."""
        if self._is_full() and not sending.cancelled() and not sending.exception():
            self._send()
        self.attempt.gate.open()

    def _store(self, batch: bytearray, first: int, count: int) -> None:
        """Store a batch exactly once, however often the database goes away."""
        while not persist(self.attempt, lambda: self._is_stored(batch, first, count)):
            logger.warning("the batch from row %d is not stored; sending it again", first)

    def _is_stored(self, batch: bytearray, first: int, count: int) -> bool:
        """Send a batch and return whether the database has it."""
        engine, name = self.attempt.engine, self.attempt.claim.attempt
        try:
            copy_batch(engine, batch)
        except BatchUncertain as uncertain:
            logger.warning("%s; checking whether the batch is stored", uncertain)
            backend = uncertain.backend
            return persist(self.attempt, lambda: settle_batch(engine, backend, name, first, count))
        return True

    async def reject(self, url: str | None, rejected: Rejected) -> None:
        """Count rejected items; store the first MOST_REJECTED of the attempt with their reasons."""
        report = self.attempt.report
        report.rejected += len(rejected.rejections)
        data, reasons = rejected.rejections[0]
        first = f"{'; '.join(reasons)} in {data[:MAX_QUOTED_CHARS]} of {redact(str(url))}"
        report.reasons.setdefault("rejected", first)
        room = MAX_REJECTED_ITEMS - self.kept_rejections
        kept = [(url, data, reasons) for data, reasons in rejected.rejections[:room]]
        if kept:
            self.kept_rejections += len(kept)
            engine, name = self.attempt.engine, self.attempt.claim.attempt
            await persist_in_thread(self.attempt, lambda: store_rejected(engine, name, kept))


async def persist_in_thread(attempt: Attempt, work: Callable[[], T], *, grace_s: float = 0.0) -> T:
    """Do *work* in a thread, and again while the database is unavailable; see `persist`."""
    return await run_in_thread(attempt, lambda: persist(attempt, work, grace_s=grace_s))


async def run_in_thread(attempt: Attempt, work: Callable[[], T]) -> T:
    """Do *work* for the database in a thread; meanwhile the attempt cannot stall."""
    attempt.storing += 1
    try:
        return await asyncio.to_thread(work)
    finally:
        attempt.storing -= 1


def persist(attempt: Attempt, work: Callable[[], T], *, grace_s: float = 0.0) -> T:
    """Do *work*, and again while the database is unavailable.

    Raises AttemptLost if the database is still away when the attempt has to stop, at least
    *grace_s* seconds after the call.
    """
    started = time.monotonic()
    while True:
        try:
            return work()
        except UNAVAILABLE as error:
            if attempt.stop_code and time.monotonic() - started >= grace_s:
                raise AttemptLost(f"the database was away for too long: {reason(error)}") from error
            logger.warning("the database is unavailable: %s", reason(error))
            time.sleep(RETRY_INTERVAL_S)
