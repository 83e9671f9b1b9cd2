"""Connection watchdog: closes connections to a database that no longer answers.

PostgreSQL ends slow statements itself, and TCP reports a peer that has gone. Neither notices a peer
that is silent: frozen, or behind a network that drops packets.
"""

import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from psycopg2.extensions import connection, cursor

POLL_INTERVAL_S = 0.25
# A connection that was used within this time is not checked again.
MAX_UNCHECKED_IDLE_S = 1.0
# The watchdog waits longer than the database itself, whose error says which statement was too slow.
SLACK_S = 3.0
Progress = Callable[[], object]


class ConnectionWatchdog:
    """Thread that shuts down the sockets of connections whose time is over."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # By descriptor: deadline, seconds that progress adds to it, progress, last progress.
        self._until: dict[int, tuple[float, float, Progress | None, object]] = {}
        self._thread: threading.Thread | None = None

    @contextmanager
    def within(
        self, descriptor: int, seconds: float, progress: Progress | None = None
    ) -> Iterator[None]:
        """Close the connection unless the block ends in time, or *progress* returns a new value.

        Of nested blocks for a connection, the outer one counts.
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
            with self._lock:  # a later connection may get the same descriptor
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
                        _shut_down(descriptor)


def _shut_down(descriptor: int) -> None:
    with socket.socket(fileno=os.dup(descriptor)) as other:
        try:
            other.shutdown(socket.SHUT_RDWR)
        except OSError:  # already closed
            return


_watchdog = ConnectionWatchdog()


class WatchedCursor(cursor):  # type: ignore[misc]
    """Cursor whose statements are watched for as long as its connection's `seconds`."""

    connection: "WatchedConnection"

    def execute(self, query: Any, vars: Any = None) -> None:
        """Execute a statement under the watchdog."""
        with self.connection.within():
            super().execute(query, vars)

    def copy_expert(self, sql: Any, file: Any, size: int = 8192) -> None:
        """Copy a file under the watchdog, which counts a moving file position as an answer."""
        with self.connection.within(progress=file.tell):
            super().copy_expert(sql, file, size)


class WatchedConnection(connection):  # type: ignore[misc]
    """Connection that the watchdog closes after `seconds` without an answer."""

    seconds: float = 60.0

    @contextmanager
    def within(
        self, seconds: float | None = None, progress: Progress | None = None
    ) -> Iterator[None]:
        """Close the connection unless the block ends within *seconds*; the default is its own."""
        with _watchdog.within(self.fileno(), seconds or self.seconds, progress):
            yield

    def commit(self) -> None:
        """Commit under the watchdog."""
        with self.within():
            super().commit()

    def rollback(self) -> None:
        """Roll back under the watchdog."""
        with self.within():
            super().rollback()


def extend_timeout(driver: Any, seconds: float) -> None:
    """Let the statements of a connection take *seconds*, until it returns to its pool."""
    if isinstance(driver, WatchedConnection):
        driver.seconds = max(driver.seconds, seconds + SLACK_S)


def watch_connections(engine: Any, statement: float, ping: float) -> None:
    """Watch the connections of *engine*: close them after *statement* seconds without an answer.

    A connection that was idle for a while is checked within *ping* seconds.
    """
    from sqlalchemy import event

    @event.listens_for(engine, "connect")
    def connect(made: WatchedConnection, _: Any) -> None:
        made.seconds = statement

    @event.listens_for(engine, "checkin")
    def checkin(given: WatchedConnection | None, _: Any) -> None:
        if given is not None:
            given.seconds = statement

    check_idle_connections(engine, lambda taken: taken.within(ping))


def check_idle_connections(
    engine: Any, within: Callable[[Any], AbstractContextManager[None]] = nullcontext
) -> None:
    """Check a connection of *engine* at its checkout from the pool if it was idle for a while.

    A check at each checkout would cost a server or a worker a tenth of its time. A connection that
    was just used is hardly dead; if it is, its statement fails, and the pool replaces all
    connections.
    """
    from sqlalchemy import event, exc

    @event.listens_for(engine, "checkin")
    def checkin(_: Any, record: Any) -> None:
        record.info["since"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def checkout(taken: Any, record: Any, _: Any) -> None:
        if time.monotonic() - record.info.get("since", math.inf) < MAX_UNCHECKED_IDLE_S:
            return
        try:
            with within(taken):
                engine.dialect.do_ping(taken)
        except engine.dialect.loaded_dbapi.Error as error:
            raise exc.InvalidatePoolError from error
