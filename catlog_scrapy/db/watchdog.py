"""Connections to a database that says nothing any more are cut, so that who waits can go on.

PostgreSQL ends its statements itself, and TCP tells of a peer that is gone; of one that is there
and silent (frozen, or behind a network that swallows packets) nobody does.
"""

import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from psycopg2.extensions import connection, cursor

# Seconds between two looks.
POLL_INTERVAL_S = 0.25
# Seconds that a connection is trusted for after its last use.
MAX_UNCHECKED_IDLE_S = 1.0
# Seconds by which the watch is slower than the database itself, which says what took too long.
SLACK_S = 3.0
Progress = Callable[[], object]


class ConnectionWatchdog:
    """Cuts the connections whose time is over, from a thread of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # By descriptor: until when, for how long at a time, what shows progress, the last of it.
        self._until: dict[int, tuple[float, float, Progress | None, object]] = {}
        self._thread: threading.Thread | None = None

    @contextmanager
    def within(
        self, descriptor: int, seconds: float, progress: Progress | None = None
    ) -> Iterator[None]:
        """Cut the connection unless the block ends in time, or *progress* says something new.

        In another such block for the same connection, that one counts.
        """
        if descriptor in self._until:
            yield
            return
        self._until[descriptor] = (time.monotonic() + seconds, seconds, progress, None)
        if self._thread is None:
            self._start()
        try:
            yield
        finally:
            with self._lock:  # so that it is this connection that is cut, and no later one
                del self._until[descriptor]

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="catlog-connection-watchdog", daemon=True
                )
                self._thread.start()

    def _run(self) -> None:
        while True:
            time.sleep(POLL_INTERVAL_S)
            with self._lock:
                now = time.monotonic()
                for descriptor, (until, seconds, progress, last) in list(self._until.items()):
                    if until >= now:
                        continue
                    if progress and (seen := progress()) != last:
                        self._until[descriptor] = (now + seconds, seconds, progress, seen)
                    else:
                        _cut(descriptor)


def _cut(descriptor: int) -> None:
    with socket.socket(fileno=os.dup(descriptor)) as other:
        try:
            other.shutdown(socket.SHUT_RDWR)
        except OSError:  # it is closed already
            return


_watchdog = ConnectionWatchdog()


class WatchedCursor(cursor):  # type: ignore[misc]
    """Waits for an answer for as long as its connection's `seconds`."""

    connection: "WatchedConnection"

    def execute(self, query: Any, vars: Any = None) -> None:
        with self.connection.within():
            super().execute(query, vars)

    def copy_expert(self, sql: Any, file: Any, size: int = 8192) -> None:
        with self.connection.within(progress=file.tell):
            super().copy_expert(sql, file, size)


class WatchedConnection(connection):  # type: ignore[misc]
    """Cut when nothing has come for `seconds`."""

    seconds: float = 60.0

    @contextmanager
    def within(
        self, seconds: float | None = None, progress: Progress | None = None
    ) -> Iterator[None]:
        """Cut the connection unless the block ends within *seconds*, or its own."""
        with _watchdog.within(self.fileno(), seconds or self.seconds, progress):
            yield

    def commit(self) -> None:
        with self.within():
            super().commit()

    def rollback(self) -> None:
        with self.within():
            super().rollback()


def extend_timeout(driver: Any, seconds: float) -> None:
    """Let statements of *driver* take *seconds*, until it is given back to its pool."""
    if isinstance(driver, WatchedConnection):
        driver.seconds = max(driver.seconds, seconds + SLACK_S)


def watch_connections(engine: Any, statement: float, ping: float) -> None:
    """Let connections of *engine* be cut after *statement* seconds of silence.

    One that nobody has used for a while is looked after when it is taken from the pool: within
    *ping* seconds. One that was used just now is hardly dead; if it is, its statement fails, and
    all are replaced.
    """
    from sqlalchemy import event, exc

    @event.listens_for(engine, "connect")
    def connect(made: WatchedConnection, _: Any) -> None:
        made.seconds = statement

    @event.listens_for(engine, "checkin")
    def checkin(given: WatchedConnection | None, record: Any) -> None:
        if given is not None:
            given.seconds = statement
        record.info["since"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def checkout(taken: WatchedConnection, record: Any, _: Any) -> None:
        if time.monotonic() - record.info.get("since", math.inf) < MAX_UNCHECKED_IDLE_S:
            return
        try:
            with taken.within(ping):
                engine.dialect.do_ping(taken)
        except engine.dialect.loaded_dbapi.Error as error:
            raise exc.InvalidatePoolError from error
