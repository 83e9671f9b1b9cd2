"""Sessions, transactions and locks through PgBouncer in transaction mode."""

import asyncio
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg2
import pytest
from sqlalchemy import Engine, exc, make_url, text

from catlog_scrapy.db.driver import connect
from catlog_scrapy.db.engine import make_engine
from catlog_scrapy.db.session import SESSION_SETTINGS
from catlog_scrapy.db.statement_pool import StatementPool
from catlog_scrapy.exceptions import NotPossible
from catlog_scrapy.store import lock_timeouts, sql
from catlog_scrapy.store.queue import nodes
from tests.support.pgbouncer import PgBouncer
from tests.support.waiting import rows

# It needs PgBouncer.
pytestmark = pytest.mark.slow

# A transaction cannot change its own isolation level by this setting.
EXPECTED = {
    **{name: value for name, value in SESSION_SETTINGS.items() if "isolation" not in name},
    "lock_timeout": "30s",
    "idle_in_transaction_session_timeout": "1min",
    "client_encoding": "UTF8",
}
SETTINGS = "SELECT " + ", ".join(f"current_setting('{n}') AS {n}" for n in EXPECTED)
TIMEOUT = "SELECT current_setting('statement_timeout') AS statement_timeout"


@pytest.fixture
def pooler(database_url: str) -> Iterator[PgBouncer]:
    with PgBouncer(database_url) as pooler:
        yield pooler


@pytest.fixture
def pooled(pooler: PgBouncer) -> Iterator[Engine]:
    engine = make_engine(pooler.url, statement_timeout=5)
    yield engine
    engine.dispose()


@pytest.fixture
def single(database_url: str) -> Iterator[str]:
    """Return the URL of a PgBouncer with one server connection, which all clients share."""
    with PgBouncer(database_url, pool_size=1) as pooler:
        yield pooler.url


def values(connection: psycopg2.extensions.connection, query: str) -> tuple[object, ...]:
    with connection, connection.cursor() as cursor:
        cursor.execute(query)
        return tuple(cursor.fetchone())


def test_every_transaction_has_the_session_settings(single: str) -> None:
    engine = make_engine(single, statement_timeout=5)
    other = psycopg2.connect(make_url(single).set(drivername="postgresql").render_as_string())
    for _ in range(3):
        with other, other.cursor() as cursor:  # another program leaves its settings behind
            cursor.execute("SET search_path = pg_catalog; SET lock_timeout = 1; SET jit = on")
        with engine.begin() as connection:
            assert dict(connection.execute(text(SETTINGS)).mappings().one()) == EXPECTED
            assert connection.scalar(text(TIMEOUT)) == "5s"
    other.close()
    engine.dispose()


def test_settings_of_a_transaction_do_not_reach_other_clients(single: str) -> None:
    other = psycopg2.connect(make_url(single).set(drivername="postgresql").render_as_string())
    before = values(other, SETTINGS)
    engine = make_engine(single, statement_timeout=5)
    rows(engine, "SELECT 1")
    sql.call(engine, "SELECT 1 AS one")
    engine.dispose()
    assert values(other, SETTINGS) == before
    assert values(other, TIMEOUT) == ("0",)
    other.close()


def test_statements_without_a_transaction_have_the_session_settings(pooled: Engine) -> None:
    assert sql.call(pooled, SETTINGS) == EXPECTED
    assert sql.call(pooled, TIMEOUT) == {"statement_timeout": "5s"}
    autocommit = pooled.execution_options(isolation_level="AUTOCOMMIT")
    assert rows(autocommit, SETTINGS) == [tuple(EXPECTED.values())]


def test_copy_without_a_statement_before_has_the_session_settings(pooled: Engine) -> None:
    with pooled.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        with driver.cursor() as cursor, Path(os.devnull).open("w") as nothing:
            cursor.copy_expert("COPY (SELECT 1) TO STDOUT", nothing)
            cursor.execute(TIMEOUT)
            assert cursor.fetchone() == ("5s",)


def test_statements_of_the_event_loop_have_the_session_settings(pooler: PgBouncer) -> None:
    async def ask() -> list[tuple[object, ...]]:
        pool = StatementPool(make_url(pooler.url), statement_timeout=5.0, connect_timeout=3.0)
        found = [(await pool.rows(query, {}))[0] for query in (SETTINGS, TIMEOUT, SETTINGS)]
        pool.close()
        return found

    expected = tuple(EXPECTED.values())
    assert asyncio.run(ask()) == [expected, ("5s",), expected]


def test_reading_commands_have_the_session_settings(pooler: PgBouncer) -> None:
    with connect(pooler.url) or pytest.fail("no connection") as connection:
        assert connection.rows(SETTINGS, {}) == [EXPECTED]
        assert connection.scalar(TIMEOUT) == "1min"
        assert connection.scalar("SHOW transaction_read_only") == "on"


def test_statement_that_takes_too_long_is_cancelled(pooler: PgBouncer) -> None:
    engine = make_engine(pooler.url, statement_timeout=0.2)
    for database in (engine, engine.execution_options(isolation_level="AUTOCOMMIT")):
        with pytest.raises(exc.OperationalError, match="statement timeout"):
            rows(database, "SELECT pg_sleep(60)")
    with pytest.raises(exc.OperationalError, match="statement timeout"):
        sql.call(engine, "SELECT pg_sleep(60)")
    engine.dispose()


def test_second_node_of_a_name_is_refused(pooled: Engine, single: str) -> None:
    first = nodes.NodeNameLease(pooled, "here:6800", poll_interval=1)
    first.acquire()
    first.acquire()
    other = make_engine(single)
    taken = nodes.NodeNameLease(other, "here:6800", poll_interval=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nodes, "process_identity", lambda: "another process")
        with pytest.raises(nodes.NameTaken, match="another node has the name 'here:6800'"):
            taken.acquire()
        nodes.NodeNameLease(other, "here:6801", poll_interval=1).acquire()
        taken.release()
        with pytest.raises(nodes.NameTaken):
            taken.acquire()
        first_again = "SELECT count(*) FROM catlog.node_lease WHERE name = 'here:6800'"
        assert rows(other, first_again) == [(1,)]
    first.release()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nodes, "process_identity", lambda: "another process")
        taken.acquire()
    other.dispose()


@pytest.mark.parametrize("expires", ["- interval '1 s'", "+ interval '1 day'"])
def test_name_whose_lease_expired_or_came_from_a_wrong_clock_is_free(
    pooled: Engine, expires: str
) -> None:
    held = f"""INSERT INTO catlog.node_lease
        VALUES ('here:6800', 'another process', now() {expires}) RETURNING 1"""
    rows(pooled, held)
    nodes.NodeNameLease(pooled, "here:6800", poll_interval=1).acquire()


def test_second_apply_is_refused_while_the_first_runs(pooled: Engine, pooler: PgBouncer) -> None:
    other = make_engine(pooler.url)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lock_timeouts, "APPLY_LOCK_TIMEOUT_S", 0.2)
        hasty = make_engine(pooler.url)
        with lock_timeouts.apply_lock(pooled):
            rows(pooled, "SELECT 1")
            running = pytest.raises(NotPossible, match="another scrapy apply is running")
            with running, lock_timeouts.apply_lock(hasty):
                pytest.fail("two at once")
        hasty.dispose()
    with lock_timeouts.apply_lock(other), ThreadPoolExecutor() as threads:
        waiting = threads.submit(lambda: rows(pooled, "SELECT 1"))
        assert waiting.result() == [(1,)]
    with lock_timeouts.apply_lock(pooled):
        pass
    other.dispose()


def test_killed_apply_frees_its_lock(pooled: Engine, pooler: PgBouncer) -> None:
    killed = make_engine(pooler.url)
    lock = lock_timeouts.apply_lock(killed)
    lock.__enter__()
    killed.pool.dispose()
    del lock  # its connection closes without a word to the server
    with lock_timeouts.apply_lock(pooled):
        pass
