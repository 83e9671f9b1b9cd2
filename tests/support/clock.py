"""PostgreSQL server whose clock tests can set, by libfaketime."""

import datetime as dt
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import libfaketime
from sqlalchemy import Engine

from catlog_scrapy.db import embedded
from catlog_scrapy.db.embedded import EmbeddedServer
from catlog_scrapy.db.engine import make_engine
from catlog_scrapy.db.migrations import upgrade
from tests.support.postgres import NOT_DURABLE

LIBRARY = Path(libfaketime.__file__).parent / "vendor/libfaketime/src/libfaketime.so.1"


class Clock:
    """Clock of a server. Its file holds the distance from the true time."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.be_right()

    def be_right(self) -> None:
        self.be_ahead(dt.timedelta(0))

    def be_ahead(self, distance: dt.timedelta) -> None:
        """Set the clock to the true time and *distance*, which may be negative."""
        new = self.file.with_suffix(".new")
        new.write_text(f"{distance.total_seconds():+f}", encoding="ascii")
        new.chmod(0o644)
        new.rename(self.file)


@contextmanager
def a_server_with_a_clock(home: Path) -> Iterator[tuple[Engine, Clock]]:
    """Start a server, and yield an engine on its migrated database, and its clock."""
    home.mkdir(parents=True, exist_ok=True)
    clock = Clock(home / "clock")
    server = EmbeddedServer(home)
    faked = {
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": str(clock.file),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }
    with patch.dict(os.environ, faked), patch.dict(embedded.SETTINGS, NOT_DURABLE):
        url = server.acquire()
    engine = make_engine(url)
    try:
        upgrade(engine)
        yield engine, clock
    finally:
        engine.dispose()
        server.release()
