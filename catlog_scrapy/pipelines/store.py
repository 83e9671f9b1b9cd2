"""The second step: rows go to the database, in batches, off the event loop."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

from scrapy.crawler import Crawler

from catlog_scrapy.crawl.attempt import Attempt, running_attempt
from catlog_scrapy.db.engine import UNAVAILABLE, reason
from catlog_scrapy.exceptions import AttemptLost
from catlog_scrapy.pipelines.validate import Rejected
from catlog_scrapy.records.validation import Row, ValidatedItem
from catlog_scrapy.redaction import redact
from catlog_scrapy.store.queue.results import (
    MAX_REJECTED_ITEMS,
    BatchUncertain,
    copy_batch,
    line_prefix,
    settle_batch,
    store_rejected,
    write_lines,
)

logger = logging.getLogger(__name__)

T = TypeVar("T")

# A batch is sent when it has so many rows, or so many bytes.
MAX_BATCH_ROWS = 10_000
MAX_BATCH_BYTES = 4 * 1024 * 1024
# Seconds between two looks at a database that is away.
RETRY_INTERVAL_S = 0.5


class StorePipeline:
    """Hands every validated item's rows to the attempt's writer, and gives the item back."""

    def __init__(self, writer: "ResultWriter") -> None:
        self.writer = writer

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> "StorePipeline":
        return cls(ResultWriter(running_attempt(crawler)))

    async def process_item(self, validated: ValidatedItem) -> Any:
        """Returns the item itself, for whoever listens to `item_scraped`."""
        self.writer.add(validated.rows)
        if validated.rejections:
            raise Rejected(validated.rejections)
        return validated.item


class ResultWriter:
    """Gathers the rows of one attempt and sends them, one batch at a time, numbered.

    Two batches at most are in memory: one that is being sent, one that fills. A batch that is
    full while the other is on its way closes the attempt's gate: this is the back-pressure.
    """

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt
        self.prefix = line_prefix(attempt.claim.attempt)
        self.batch = bytearray()
        self.first = 0
        self.sending: asyncio.Task[None] | None = None
        self.kept_rejections = 0

    def add(self, rows: list[Row]) -> None:
        """Number the *rows* and keep them for the next batch. Raises the error of a former one."""
        report = self.attempt.report
        report.accepted = write_lines(self.batch, self.prefix, report.accepted, rows)
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
        """Send what is left and wait until all is stored. Raises the error of any batch."""
        await self._settled()
        if self.batch:
            self._send()
        await self._settled()

    async def _settled(self) -> None:
        while sending := self.sending:
            await sending
            if self.sending is sending:
                self.sending = None

    def _raise_if_failed(self) -> None:
        if self.sending and self.sending.done():
            error = self.sending.exception()
            if error:
                # The attempt has failed; what still comes is not worth the memory.
                self.batch, self.first = bytearray(), self.attempt.report.accepted
                raise error

    def _send(self) -> None:
        batch, first = bytes(self.batch), self.first
        self.batch, self.first = bytearray(), self.attempt.report.accepted
        count = self.first - first
        self.sending = asyncio.create_task(
            run_in_thread(self.attempt, lambda: self._store(batch, first, count))
        )
        self.sending.add_done_callback(self._sent)

    def _sent(self, sending: "asyncio.Task[None]") -> None:
        """Send the next batch, if it is full by now, and let the crawl go on."""
        if self._is_full() and not sending.cancelled() and not sending.exception():
            self._send()
        self.attempt.gate.open()

    def _store(self, batch: bytes, first: int, count: int) -> None:
        """Store one batch, exactly once, however often the database goes away meanwhile."""
        while not persist(self.attempt, lambda: self._stored(batch, first, count)):
            logger.warning("the batch from row %d is not stored; sending it again", first)

    def _stored(self, batch: bytes, first: int, count: int) -> bool:
        engine, name = self.attempt.engine, self.attempt.claim.attempt
        try:
            copy_batch(engine, batch)
        except BatchUncertain as uncertain:
            logger.warning("%s; looking whether the batch is stored", uncertain)
            backend = uncertain.backend
            return persist(self.attempt, lambda: settle_batch(engine, backend, name, first, count))
        return True

    async def reject(self, url: str | None, rejected: Rejected) -> None:
        """Keep rejected items with their reasons, the first thousand of an attempt."""
        report = self.attempt.report
        report.rejected += len(rejected.rejections)
        data, reasons = rejected.rejections[0]
        first = f"{'; '.join(reasons)} in {data[:200]} of {redact(str(url))}"
        report.reasons.setdefault("rejected", first)
        room = MAX_REJECTED_ITEMS - self.kept_rejections
        kept = [(url, data, reasons) for data, reasons in rejected.rejections[:room]]
        if kept:
            self.kept_rejections += len(kept)
            name = self.attempt.claim.attempt
            await run_in_thread(
                self.attempt,
                lambda: persist(
                    self.attempt, lambda: store_rejected(self.attempt.engine, name, kept)
                ),
            )


async def run_in_thread(attempt: Attempt, work: Callable[[], T]) -> T:
    """Do *work* off the event loop; as long as it takes, the attempt waits for the database."""
    attempt.storing += 1
    try:
        return await asyncio.to_thread(work)
    finally:
        attempt.storing -= 1


def persist(attempt: Attempt, work: Callable[[], T], *, grace_s: float = 0.0) -> T:
    """Do *work*, again and again while the database is away.

    Raises AttemptLost once the attempt has to stop and *grace_s* (seconds) is over.
    """
    started = time.monotonic()
    while True:
        try:
            return work()
        except UNAVAILABLE as error:
            if attempt.stop_code and time.monotonic() - started >= grace_s:
                raise AttemptLost(f"the database was away for too long: {reason(error)}") from error
            logger.warning("the database is away: %s", reason(error))
            time.sleep(RETRY_INTERVAL_S)
