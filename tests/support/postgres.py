"""PostgreSQL server for all processes of a test run, and databases cloned from templates."""

import fcntl
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from unittest.mock import patch

from sqlalchemy import Connection, text

from catlog_scrapy.db import embedded
from catlog_scrapy.db.embedded import EmbeddedServer
from catlog_scrapy.db.engine import make_engine
from catlog_scrapy.db.migrations import upgrade

# A migrated database, and the one that an EmbeddedServer makes.
TEMPLATE = embedded.NAME
# Tests of crashes start servers of their own, which are durable.
NOT_DURABLE = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_wal_size": "256MB",
    "max_connections": 500,
}
MEMORY = Path("/dev/shm")
MIN_MEMORY_BYTES = 4 * 2**30
HOME = "TEST_POSTGRES_HOME"


def make_home() -> Path:
    """Make the folder of the run's server, in memory if possible, and tell workers its path."""
    in_memory = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= MIN_MEMORY_BYTES
    home = Path(tempfile.mkdtemp(prefix="catlog-tests-", dir=MEMORY if in_memory else None))
    os.environ[HOME] = str(home)
    return home


class Postgres:
    """PostgreSQL server of the run, used by this process; the last process stops the server."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.server = EmbeddedServer(home)
        worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
        self.names = (f"test_{worker}_{number}" for number in itertools.count(1))

    def __enter__(self) -> Self:
        with patch.dict(embedded.SETTINGS, NOT_DURABLE):
            self.base_url = self.server.acquire()
        self.once(TEMPLATE, self._migrate)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.release()

    def url(self, database: str) -> str:
        """Return the URL of *database*."""
        return self.base_url.replace(f"/{TEMPLATE}?", f"/{database}?")

    @contextmanager
    def clone(self, template: str = TEMPLATE) -> Iterator[str]:
        """Clone *template*, yield the clone's URL, and drop the clone."""
        name = next(self.names)
        with self._admin() as connection:
            connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template}"))
            try:
                yield self.url(name)
            finally:
                connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))

    def make_template(self, name: str, fill: Callable[[str], Any]) -> Any:
        """Fill the database *name* once a run by its URL; return what *fill* returned, as JSON."""

        def make() -> Any:
            with self._admin() as connection:
                connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
                connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}"))
            return fill(self.url(name))

        return self.once(name, make)

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """Return what *make* returned in the first process of the run to come here, as JSON."""
        made = self.home / f"{name}.json"
        with (self.home / f"{name}.lock").open("w") as lock:
            # The kernel unlocks for a worker that is killed; the next one makes it again.
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.exists():
                unfinished = made.with_suffix(".new")
                unfinished.write_text(json.dumps(make()), encoding="utf-8")
                unfinished.rename(made)
        return json.loads(made.read_text(encoding="utf-8"))

    def _migrate(self) -> None:
        engine = make_engine(self.base_url)
        upgrade(engine)
        engine.dispose()

    @contextmanager
    def _admin(self) -> Iterator[Connection]:
        engine = make_engine(self.url("postgres"), statement_timeout=0)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            yield connection
        engine.dispose()
