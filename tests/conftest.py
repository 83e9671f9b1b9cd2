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

folders_key = pytest.StashKey[list[Path]]()


def pytest_configure(config: pytest.Config) -> None:
    """Make the folders of the run in the process that starts the workers."""
    if hasattr(config, "workerinput"):
        return
    config.stash[folders_key] = [make_home()]
    if os.geteuid() == 0:
        # PostgreSQL's user has to pass; another run of pytest would close the common folder.
        temporary = Path(tempfile.mkdtemp(prefix="pytest-"))
        os.environ["PYTEST_DEBUG_TEMPROOT"] = str(temporary)
        config.stash[folders_key].append(temporary)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Keep the temporary folders of tests that failed."""
    if exitstatus:
        del session.config.stash.get(folders_key, [])[1:]


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the folders after the last worker."""
    for folder in config.stash.get(folders_key, []):
        shutil.rmtree(folder, ignore_errors=True)


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
