"""Whole resources as NDJSON or CSV, in constant memory, whatever the client's pace.

PostgreSQL writes them by COPY to a file of no name; the client is sent that file while it grows.
So a slow client holds a file, and no connection.
"""

import asyncio
import io
import os
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

from fastapi.responses import StreamingResponse
from scrapy.settings import BaseSettings
from sqlalchemy import Connection, Engine
from starlette.types import Receive, Scope, Send

from catlog_scrapy.api.problems import Problem
from catlog_scrapy.store.reading.pages import PageQuery, PageSource, copy_rows, snapshot

MEDIA_TYPES = {"ndjson": "application/x-ndjson", "csv": "text/csv"}
# Looks at a snapshot before its rows are written.
Look = Callable[[Connection], str | None]
# How many resources are written at once, and how many clients may be sent one.
WRITERS = 4
MOST_STREAMS = 64
# Bytes that are written, and sent, at once.
CHUNK = 2**18
# Seconds between two looks at a file that has not grown.
PAUSE = 0.01


class StreamBroken(Exception):
    """What is sent cannot be ended well, so the connection is cut. Raised while a body is sent."""


class Spool:
    """A file that a thread fills with a resource, and that is read meanwhile."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        raw = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        self.file = io.BufferedWriter(cast(io.RawIOBase, raw), CHUNK)
        self.ended = threading.Event()
        self.abandoned = False
        self.error: Exception | None = None
        self.cancel: Any = None
        self.seen: str | None = None

    def fill(
        self, engine: Engine, source: PageSource, question: PageQuery, csv: bool, look: Look
    ) -> None:
        """Write all of it. What goes wrong is kept as `error`, for whoever reads."""
        try:
            with snapshot(engine) as connection:
                driver: Any = connection.connection.driver_connection
                self.cancel = driver.cancel
                try:
                    if not self.abandoned:
                        self.seen = look(connection)
                        copy_rows(connection, source, question, csv=csv, to=self.file)
                finally:
                    self.cancel = None
                    if self.abandoned:
                        # A cancellation may still be on its way to it.
                        connection.invalidate()
            self.file.flush()
        except Exception as error:  # the reader says what has become of it
            self.error = error
        finally:
            self.ended.set()

    def read(self, offset: int) -> bytes:
        """What there is from *offset* on, CHUNK at most; empty where nothing is yet."""
        return os.pread(self.file.fileno(), CHUNK, offset)

    def abandon(self) -> None:
        """Nobody reads it any more."""
        self.abandoned = True
        if cancel := self.cancel:
            # It asks the database, which may be silent; so not here, in the event loop.
            threading.Thread(target=cancel, name="catlog-cancel", daemon=True).start()
        if self.ended.is_set():
            self.file.raw.close()


class Streams:
    """Starts streams, and keeps to their number."""

    def __init__(self, engine: Engine, settings: BaseSettings) -> None:
        self.engine = engine
        self.folder = Path(settings["CATLOG_HOME"])
        self.patience = settings.getfloat("CATLOG_API_TIMEOUT")
        self.writers = ThreadPoolExecutor(WRITERS, "catlog-stream")
        self.room = threading.BoundedSemaphore(MOST_STREAMS)

    def stream(
        self,
        source: PageSource,
        question: PageQuery,
        *,
        media_type: str,
        look: Look,
        headers: Callable[[str | None], Mapping[str, str]],
    ) -> "SpooledResponse":
        """All rows of *source* that *question* asks for. From a thread: it waits for the first.

        *headers* are made of what *look* says of the snapshot that the rows are of.
        Raises Problem where there are too many streams, and what the database raises.
        """
        if not self.room.acquire(blocking=False):
            raise Problem(
                503, f"{MOST_STREAMS} streams are under way.", headers={"Retry-After": "10"}
            )
        try:
            spool = Spool(self.folder)
        except OSError:
            self.room.release()
            raise
        csv = media_type == MEDIA_TYPES["csv"]
        self.writers.submit(spool.fill, self.engine, source, question, csv, look)
        response = SpooledResponse(spool, self.room, media_type=media_type)
        try:
            self._await_first(spool)
            response.headers.update(headers(spool.seen))
        except Exception:
            response.end()
            raise
        return response

    def _await_first(self, spool: Spool) -> None:
        began = time.monotonic()
        while not spool.ended.wait(PAUSE) and not spool.read(0):
            if time.monotonic() - began > self.patience:
                raise Problem(504, "the first row took too long to find; narrow it by filters.")
        if spool.error is not None:
            raise spool.error


class SpooledResponse(StreamingResponse):
    """Sends a spool while it grows; cuts the connection where it cannot be ended well."""

    def __init__(self, spool: Spool, room: threading.BoundedSemaphore, **options: Any) -> None:
        super().__init__(self._chunks(), **options)
        self.spool = spool
        self.room = room

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.end()

    def end(self) -> None:
        """Nobody reads it any more. Once."""
        self.spool.abandon()
        self.room.release()

    async def _chunks(self) -> AsyncIterator[bytes]:
        sent = 0
        while True:
            is_last = self.spool.ended.is_set()
            chunk = self.spool.read(sent)
            sent += len(chunk)
            if chunk:
                yield chunk
            elif is_last:
                break
            else:
                await asyncio.sleep(PAUSE)
        if self.spool.error is not None:
            raise StreamBroken(f"a stream broke after {sent} bytes: {self.spool.error}")
