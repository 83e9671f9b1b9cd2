"""Pool of asynchronous connections for single statements.

An event loop executes a statement in a tenth of the CPU that a thread with SQLAlchemy takes; see
docs/decisions/request-cost.md.
"""

import asyncio
import math
import select
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import psycopg2
from psycopg2 import extensions, extras
from sqlalchemy import URL, exc
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2

from catlog_scrapy.db.driver import driver_sql
from catlog_scrapy.db.engine import host_of
from catlog_scrapy.db.session import connect_arguments, end_opening, session_sql
from catlog_scrapy.db.watchdog import MAX_UNCHECKED_IDLE_S

# As many as an engine of db/engine.py has.
MAX_CONNECTIONS = 30
MAX_IDLE_CONNECTIONS = 10


class StatementPool:
    """Autocommit connections to the database of *url*, for the event loop of one thread.

    A statement takes at most *statement_timeout* seconds, a connection or a ping at most
    *connect_timeout* seconds.
    """

    def __init__(self, url: URL, *, statement_timeout: float, connect_timeout: float) -> None:
        self.url = url
        self.statement_timeout = statement_timeout
        self.connect_timeout = connect_timeout
        # The last used connection is last, with the time of its use.
        self._idle: list[tuple[extensions.connection, float]] = []
        self._slots = asyncio.Semaphore(MAX_CONNECTIONS)

    async def rows(self, sql: str, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Return all rows of *sql*, whose parameters are written as `:name`.

        Statements separated by semicolons run in one transaction; the rows are those of the last
        statement. Raises psycopg2's errors, and SQLAlchemy's TimeoutError if no connection is free.
        """
        async with self._connection() as connection:
            cursor = connection.cursor()
            cursor.execute(driver_sql(sql), values)
            # The database's own timeout ends a slow statement first, with an error that says so.
            await _finish(connection, self.statement_timeout + self.connect_timeout)
            return list(cursor.fetchall())

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop()[0].close()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[extensions.connection]:
        try:
            async with asyncio.timeout(self.connect_timeout):
                await self._slots.acquire()
        except TimeoutError:
            raise exc.TimeoutError("all connections to the database are in use") from None
        try:
            connection = await self._take()
            try:
                yield connection
            finally:
                is_usable = not connection.closed and not connection.isexecuting()
                if is_usable and len(self._idle) < MAX_IDLE_CONNECTIONS:
                    self._idle.append((connection, time.monotonic()))
                else:
                    connection.close()
        finally:
            self._slots.release()

    async def _take(self) -> extensions.connection:
        """Return an idle connection that is alive, or a new connection."""
        while self._idle:
            connection, used_at = self._idle.pop()
            if time.monotonic() - used_at < MAX_UNCHECKED_IDLE_S:
                return connection
            try:
                # The connection only has a weak reference to its cursor.
                cursor = connection.cursor()
                cursor.execute("SELECT 1")
                await _finish(connection, self.connect_timeout)
            except psycopg2.Error:
                # The other idle connections have been idle for longer.
                connection.close()
                self.close()
            else:
                return connection
        # In a thread, because libpq looks up the host's name.
        return await asyncio.to_thread(self._connect)

    def _connect(self) -> extensions.connection:
        dialect: Any = PGDialect_psycopg2
        arguments, options = dialect().create_connect_args(self.url)
        given = connect_arguments(host_of(self.url), self.url.query)
        connection = psycopg2.connect(*arguments, **options | given, async_=1)
        deadline = time.monotonic() + self.connect_timeout
        try:
            _complete(connection, deadline)
            opening = connection.cursor()
            opening.execute(session_sql(connection, self.statement_timeout))
            _complete(connection, deadline)
            end_opening(connection, opening, self.statement_timeout)
        except BaseException:
            connection.close()
            raise
        extras.register_uuid(None, connection)
        return connection


def _complete(connection: extensions.connection, deadline: float) -> None:
    """Wait, without an event loop, until the connection or its statement is complete."""
    while (state := connection.poll()) != extensions.POLL_OK:
        _await_socket(connection.fileno(), state, deadline)


def _await_socket(descriptor: int, state: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN if state == extensions.POLL_READ else select.POLLOUT)
    if not poll.poll(max(0, math.ceil((deadline - time.monotonic()) * 1000))):
        raise psycopg2.OperationalError("the database did not answer in time")


async def _finish(connection: extensions.connection, timeout_s: float) -> None:
    """Wait until the connection's statement has ended.

    Raises psycopg2's errors. A silent connection is closed: its statement may still run.
    """
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    descriptor = connection.fileno()
    is_writing = False

    def advance() -> None:
        nonlocal is_writing
        try:
            state = connection.poll()
        except psycopg2.Error as error:
            if not ended.done():
                ended.set_exception(error)
            return
        if state == extensions.POLL_OK and not ended.done():
            ended.set_result(None)
        elif (state == extensions.POLL_WRITE) != is_writing:
            is_writing = not is_writing
            if is_writing:
                loop.add_writer(descriptor, advance)
            else:
                loop.remove_writer(descriptor)

    def give_up() -> None:
        if not ended.done():
            ended.set_exception(psycopg2.OperationalError("the database did not answer in time"))

    timer = loop.call_later(timeout_s, give_up)
    loop.add_reader(descriptor, advance)
    try:
        advance()
        await ended
    finally:
        timer.cancel()
        loop.remove_reader(descriptor)
        if is_writing:
            loop.remove_writer(descriptor)
