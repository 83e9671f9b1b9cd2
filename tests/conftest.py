"""Real parts for all tests: one PostgreSQL a session, a database cloned from a template a test."""

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from catlog_scrapy.db.embedded import EmbeddedServer
from catlog_scrapy.db.engine import make_engine
from catlog_scrapy.db.migrations import upgrade
from tests.support.server import Worlds, make_worlds

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The URL of a PostgreSQL server, with a migrated template database in it."""
    with tempfile.TemporaryDirectory(prefix="catlog-") as home, EmbeddedServer(Path(home)) as url:
        template = make_engine(url)
        upgrade(template)
        template.dispose()
        yield url


@pytest.fixture
def database_url(server: str) -> Iterator[str]:
    """The URL of a fresh database at the head revision."""
    name = f"test_{next(_numbers)}"
    admin = make_engine(server.replace("/catlog?", "/postgres?"))
    with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE catlog"))
        yield server.replace("/catlog?", f"/{name}?")
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine on a fresh database at the head revision."""
    engine = make_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def worlds(server: str) -> Iterator[Worlds]:
    """Clones of a database of this project that holds something real, and servers of them."""
    with tempfile.TemporaryDirectory(prefix="catlog-world-") as folder:
        yield make_worlds(server, Path(folder))
