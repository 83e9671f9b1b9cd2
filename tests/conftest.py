"""Real parts for all tests: one PostgreSQL a run, a database cloned from a template a test."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from catlog_scrapy.db.engine import make_engine
from tests.support.postgres import HOME, Postgres, make_home
from tests.support.server import Worlds, make_worlds

home_key = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    """Make the folder of the server in the process that starts the workers."""
    if not hasattr(config, "workerinput"):
        config.stash[home_key] = make_home()
        if os.geteuid() == 0:
            # Another run would close the parent folder of temporary folders to PostgreSQL's user.
            os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.mkdtemp(prefix="pytest-"))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove that folder after the last worker."""
    if home := config.stash.get(home_key, None):
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """The PostgreSQL of this test run, shared by all workers."""
    with Postgres(Path(os.environ[HOME])) as postgres:
        yield postgres


@pytest.fixture
def database_url(postgres: Postgres) -> Iterator[str]:
    """The URL of a fresh database at the head revision."""
    with postgres.clone() as url:
        yield url


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine on a fresh database at the head revision."""
    engine = make_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def worlds(postgres: Postgres) -> Iterator[Worlds]:
    """Clones of a database of this project that holds something real, and servers of them."""
    with tempfile.TemporaryDirectory(prefix="catlog-world-") as folder:
        yield make_worlds(postgres, Path(folder))
