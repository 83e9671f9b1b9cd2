"""Fixtures for all tests: a PostgreSQL server per run, a cloned database per test."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from sqlalchemy import Engine, text

from catlog_scrapy.db.engine import make_engine
from tests.support.clock import Clock, a_server_with_a_clock
from tests.support.postgres import HOME, Postgres, make_home
from tests.support.server import Worlds, make_worlds

# No test depends on the speed of the machine.
settings.register_profile("catlog", deadline=None)
settings.load_profile("catlog")

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
    """Return the PostgreSQL server of this test run, which all workers share."""
    with Postgres(Path(os.environ[HOME])) as postgres:
        yield postgres


@pytest.fixture(scope="session")
def clocked_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, Clock]]:
    """Return an engine on a server whose clock tests can set, and the clock."""
    with a_server_with_a_clock(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def clock(clocked_server: tuple[Engine, Clock]) -> Iterator[Clock]:
    """Return the clock of `clocked_engine`'s server; it is right before and after a test."""
    clock = clocked_server[1]
    yield clock
    clock.be_right()


@pytest.fixture
def clocked_engine(clocked_server: tuple[Engine, Clock]) -> Iterator[Engine]:
    """Return an engine on a new database of the server whose clock tests can set."""
    url = clocked_server[0].url
    clocked_server[0].dispose()
    postgres = make_engine(url.set(database="postgres").render_as_string(hide_password=False))
    with postgres.connect().execution_options(isolation_level="AUTOCOMMIT") as admin:
        admin.execute(text("CREATE DATABASE test TEMPLATE catlog"))
        engine = make_engine(url.set(database="test").render_as_string(hide_password=False))
        yield engine
        engine.dispose()
        admin.execute(text("DROP DATABASE test WITH (FORCE)"))
    postgres.dispose()


@pytest.fixture
def database_url(postgres: Postgres) -> Iterator[str]:
    """Return the URL of a new database at the head revision."""
    with postgres.clone() as url:
        yield url


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """Return an engine on a new database at the head revision."""
    engine = make_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def worlds(postgres: Postgres) -> Iterator[Worlds]:
    """Return a maker of clones of a filled database of this project, and of their servers."""
    with tempfile.TemporaryDirectory(prefix="catlog-world-") as folder:
        yield make_worlds(postgres, Path(folder))
