"""Streams of all rows as NDJSON or CSV, in constant memory.

PostgreSQL's COPY writes the rows to an unnamed file, and the response sends the file while the
file grows. So a slow client holds a file, but no database connection.
"""

import asyncio
import io
import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, cast

from fastapi.responses import StreamingResponse
from scrapy.settings import BaseSettings
from sqlalchemy import Connection, Engine
from starlette.types import Receive, Scope, Send

from catlog_scrapy.api.problems import Problem
from catlog_scrapy.store.reading.page_query import PageQuery, PageSource
from catlog_scrapy.store.reading.pages import snapshot
from catlog_scrapy.store.reading.row_streams import copy_rows

MEDIA_TYPES = {"ndjson": "application/x-ndjson", "csv": "text/csv"}
# Reads the change stamp of the snapshot whose rows are written.
ReadStamp = Callable[[Connection], str | None]
MAX_WRITERS = 4
MAX_STREAMS = 64
MAX_CALLER_STREAMS = 8
CHUNK_BYTES = 2**18
# Between two looks at a file that has not grown.
POLL_INTERVAL_S = 0.01


class StreamBroken(Exception):
    """A started stream cannot be completed, so the server closes the connection."""


class Spool:
    """File that a thread fills with rows while the response reads it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        raw = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        self.file = io.BufferedWriter(cast(io.RawIOBase, raw), CHUNK_BYTES)
        self.is_filled = threading.Event()
        self.is_abandoned = False
        self.error: Exception | None = None
        self.cancel: Any = None
        self.stamp: str | None = None

    def fill(
        self, engine: Engine, source: PageSource, query: PageQuery, csv: bool, read_stamp: ReadStamp
    ) -> None:
        """Write all rows. An exception is stored as `error`, for the reading side."""
        try:
            with snapshot(engine) as connection:
                driver: Any = connection.connection.driver_connection
                self.cancel = driver.cancel
                try:
                    if not self.is_abandoned:
                        self.stamp = read_stamp(connection)
                        copy_rows(connection, source, query, csv=csv, to=self.file)
                finally:
                    self.cancel = None
                    if self.is_abandoned:
                        # The cancellation may still arrive at this connection.
                        connection.invalidate()
            self.file.flush()
        except Exception as error:  # the top of a thread; the reading side raises it
            self.error = error
        finally:
            self.is_filled.set()

    def read(self, offset: int) -> bytes:
        """Return at most CHUNK_BYTES from *offset* on; empty at the end of what is written."""
        return os.pread(self.file.fileno(), CHUNK_BYTES, offset)

    def abandon(self) -> None:
        """Stop writing: the response has ended."""
        self.is_abandoned = True
        if cancel := self.cancel:
            # In a thread, because the cancellation connects to the database and may block.
            threading.Thread(target=cancel, name="catlog-cancel", daemon=True).start()
        if self.is_filled.is_set():
            self.file.raw.close()


class StreamSlots:
    """Slots for streams: MAX_STREAMS in all, of which a caller holds at most MAX_CALLER_STREAMS.

    A caller is a user or a key, however many tokens, addresses and connections it has.
    """

    def __init__(self) -> None:
        self._held: Counter[str] = Counter()
        self._lock = threading.Lock()

    def acquire(self, caller: str) -> None:
        """Take a slot for a caller. Raises Problem 503 without a free slot."""
        with self._lock:
            if self._held[caller] >= MAX_CALLER_STREAMS:
                raise _too_many_streams(f"{MAX_CALLER_STREAMS} for each user or key")
            if self._held.total() >= MAX_STREAMS:
                raise _too_many_streams(f"{MAX_STREAMS}")
            self._held[caller] += 1

    def release(self, caller: str) -> None:
        """Give a slot of a caller back."""
        with self._lock:
            self._held[caller] -= 1
            self._held += Counter()  # forgets callers without streams


def _too_many_streams(limit: str) -> Problem:
    detail = f"too many concurrent streams: at most {limit}"
    return Problem(503, detail, headers={"Retry-After": "10"})


class Streams:
    """Starts streams, as many as StreamSlots has slots."""

    def __init__(self, engine: Engine, settings: BaseSettings) -> None:
        self.engine = engine
        self.folder = Path(settings["CATLOG_HOME"])
        self.timeout_s = settings.getfloat("CATLOG_API_TIMEOUT")
        self.writers = ThreadPoolExecutor(MAX_WRITERS, "catlog-stream")
        self.slots = StreamSlots()

    def stream(
        self,
        source: PageSource,
        query: PageQuery,
        *,
        caller: str,
        media_type: str,
        read_stamp: ReadStamp,
        headers: Callable[[str | None], Mapping[str, str]],
    ) -> "SpooledResponse":
        """Start a stream of all rows of *query* and wait for the first row.

        *headers* makes the headers from the stamp that *read_stamp* returns for the snapshot of the
        rows. Call in a thread. Raises Problem for too many streams, and errors of the database.
        """
        self.slots.acquire(caller)
        try:
            spool = Spool(self.folder)
        except OSError:
            self.slots.release(caller)
            raise
        csv = media_type == MEDIA_TYPES["csv"]
        self.writers.submit(spool.fill, self.engine, source, query, csv, read_stamp)
        free = partial(self.slots.release, caller)
        response = SpooledResponse(spool, free, media_type=media_type)
        try:
            self._await_first(spool)
            response.headers.update(headers(spool.stamp))
        except Exception:
            response.end()
            raise
        return response

    def _await_first(self, spool: Spool) -> None:
        started_at = time.monotonic()
        while not spool.is_filled.wait(POLL_INTERVAL_S) and not spool.read(0):
            if time.monotonic() - started_at > self.timeout_s:
                raise Problem(504, "the first row took too long to find; use more filters")
        if spool.error is not None:
            raise spool.error


class SpooledResponse(StreamingResponse):
    """Response that sends a spool while it grows."""

    def __init__(self, spool: Spool, free_slot: Callable[[], None], **options: Any) -> None:
        super().__init__(self._chunks(), **options)
        self.spool = spool
        self.free_slot = free_slot

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the spool, and release it in any case."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.end()

    def end(self) -> None:
        """Release the spool and the slot; called once."""
        self.spool.abandon()
        self.free_slot()

    async def _chunks(self) -> AsyncIterator[bytes]:
        sent = 0
        while True:
            is_last = self.spool.is_filled.is_set()
            chunk = self.spool.read(sent)
            sent += len(chunk)
            if chunk:
                yield chunk
            elif is_last:
                break
            else:
                await asyncio.sleep(POLL_INTERVAL_S)
        if self.spool.error is not None:
            raise StreamBroken(f"a stream broke after {sent} bytes: {self.spool.error}")
