"""Statements on asynchronous connections: errors, timeouts, dead and silent connections."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import TypeVar

import psycopg2
import pytest
from psycopg2.errors import QueryCanceled
from sqlalchemy import Engine, exc, make_url

from catlog_scrapy.db import statement_pool
from catlog_scrapy.db.statement_pool import StatementPool
from tests.support.factories import one, sql
from tests.support.proxy import Proxy

T = TypeVar("T")
BACKEND = "SELECT pg_backend_pid(), :n"


@pytest.fixture
def pool(database_url: str) -> Iterator[StatementPool]:
    made = StatementPool(make_url(database_url), statement_timeout=5.0, connect_timeout=3.0)
    yield made
    made.close()


async def backend(pool: StatementPool) -> int:
    """Return the process id of the pool's next connection."""
    [(pid, _)] = await pool.rows(BACKEND, {"n": 1})
    return int(pid)


def run(work: Callable[[], Awaitable[T]]) -> T:
    async def main() -> T:
        return await work()

    return asyncio.run(main())


def test_statements_in_one_call_share_a_transaction(pool: StatementPool) -> None:
    async def work() -> None:
        set_value = "SELECT set_config('catlog.as_of', :at, true)"
        read_value = "SELECT current_setting('catlog.as_of', true)"
        assert await pool.rows(f"{set_value}; {read_value}", {"at": "now"}) == [("now",)]
        assert await pool.rows(f"{read_value} WHERE :n = 1", {"n": 1}) == [("",)]

    run(work)


def test_connection_is_used_again_also_after_an_error(pool: StatementPool) -> None:
    async def work() -> None:
        first = await backend(pool)
        with pytest.raises(psycopg2.DataError):
            await pool.rows("SELECT CAST(:text AS integer)", {"text": "x"})
        assert await backend(pool) == first

    run(work)


def test_long_statements_and_results_are_complete(pool: StatementPool) -> None:
    text = "x" * 20_000_000

    async def work() -> None:
        assert await pool.rows("SELECT :text || 'y'", {"text": text}) == [(f"{text}y",)]

    run(work)


def test_concurrent_statements_get_connections_of_their_own(pool: StatementPool) -> None:
    async def work() -> None:
        asked = [
            pool.rows("SELECT pg_backend_pid(), pg_sleep(0.2 * :n)", {"n": 1}) for _ in range(4)
        ]
        assert len({rows[0][0] for rows in await asyncio.gather(*asked)}) == 4

    run(work)


def test_slow_statement_is_cancelled_by_the_database(database_url: str) -> None:
    pool = StatementPool(make_url(database_url), statement_timeout=0.2, connect_timeout=3.0)

    async def work() -> None:
        with pytest.raises(QueryCanceled):
            await pool.rows("SELECT pg_sleep(:s)", {"s": 30})
        assert await backend(pool)

    run(work)
    pool.close()


def test_dead_idle_connections_are_replaced(
    pool: StatementPool, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statement_pool, "MAX_UNCHECKED_IDLE_S", 0.0)

    async def work() -> None:
        first = await backend(pool)
        sql(engine, "SELECT pg_terminate_backend(:pid)", pid=first)
        assert await backend(pool) != first

    run(work)


def test_dead_connection_is_not_used_twice(pool: StatementPool, engine: Engine) -> None:
    async def work() -> None:
        first = await backend(pool)
        sql(engine, "SELECT pg_terminate_backend(:pid)", pid=first)
        # Used a moment ago, so not checked.
        with pytest.raises(psycopg2.OperationalError):
            await backend(pool)
        assert await backend(pool) != first

    run(work)


def test_connection_of_a_cancelled_statement_is_closed(pool: StatementPool) -> None:
    async def work() -> None:
        first = await backend(pool)
        task = asyncio.create_task(pool.rows("SELECT pg_sleep(:s)", {"s": 1}))
        await asyncio.sleep(0.1)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert await backend(pool) != first

    run(work)


def test_statement_on_a_silent_connection_ends(database_url: str) -> None:
    with Proxy(database_url) as proxy:
        pool = StatementPool(make_url(proxy.url), statement_timeout=0.5, connect_timeout=0.5)

        async def work() -> None:
            first = await backend(pool)
            proxy.freeze()
            for _ in range(2):  # a connection that is open, and a new one
                began = time.monotonic()
                with pytest.raises(psycopg2.OperationalError, match="answer"):
                    await backend(pool)
                assert 0.4 < time.monotonic() - began < 25
            proxy.thaw()
            assert await backend(pool) != first

        run(work)
        pool.close()


def test_statement_without_a_free_connection_fails(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statement_pool, "MAX_CONNECTIONS", 1)
    pool = StatementPool(make_url(database_url), statement_timeout=5.0, connect_timeout=0.2)

    async def work() -> None:
        slow = asyncio.create_task(pool.rows("SELECT pg_sleep(:s)", {"s": 1}))
        await asyncio.sleep(0.1)
        with pytest.raises(exc.TimeoutError):
            await backend(pool)
        await slow
        assert await backend(pool)

    run(work)
    pool.close()


def test_idle_connections_are_bounded_and_closed(
    pool: StatementPool, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statement_pool, "MAX_IDLE_CONNECTIONS", 2)

    async def work() -> None:
        await asyncio.gather(*[pool.rows("SELECT pg_sleep(:s)", {"s": 0.3}) for _ in range(4)])
        pids = [await backend(pool) for _ in range(2)]
        assert one(engine, "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(:p)", p=pids) > 0
        pool.close()
        end = time.monotonic() + 10
        while one(engine, "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(:p)", p=pids):
            assert time.monotonic() < end
            await asyncio.sleep(0.05)

    run(work)
