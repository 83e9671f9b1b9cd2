"""Connections to a database that says nothing any more are cut, so that who waits can go on.

PostgreSQL ends its statements itself, and TCP tells of a peer that is gone; of one that is there
and silent (frozen, or behind a network that swallows packets) nobody does.
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from psycopg2.extensions import connection, cursor

# Seconds between two looks.
PAUSE = 0.25


class Watch:
    """Cuts the connections whose time is over, from a thread of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until: dict[int, float] = {}
        self._thread: threading.Thread | None = None

    @contextmanager
    def within(self, descriptor: int, seconds: float) -> Iterator[Callable[[], None]]:
        """Cut the connection unless the block ends in time; what it yields gives it time anew.

        In another such block for the same connection, that one counts.
        """
        if descriptor in self._until:
            yield lambda: None
            return

        def again() -> None:
            self._until[descriptor] = time.monotonic() + seconds

        again()
        if self._thread is None:
            self._start()
        try:
            yield again
        finally:
            with self._lock:  # so that it is this connection that is cut, and no later one
                del self._until[descriptor]

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="silence", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            time.sleep(PAUSE)
            with self._lock:
                now = time.monotonic()
                for descriptor, until in list(self._until.items()):
                    if until < now:
                        _cut(descriptor)


def _cut(descriptor: int) -> None:
    with socket.socket(fileno=os.dup(descriptor)) as other:
        try:
            other.shutdown(socket.SHUT_RDWR)
        except OSError:  # it is closed already
            return


_watch = Watch()


class Cursor(cursor):  # type: ignore[misc]
    """Waits for an answer for as long as its connection's `seconds`."""

    connection: "Connection"

    def execute(self, query: Any, vars: Any = None) -> None:
        with self.connection.within():
            super().execute(query, vars)

    def copy_expert(self, sql: Any, file: Any, size: int = 8192) -> None:
        with self.connection.within() as again:
            super().copy_expert(sql, _Progress(file, again), size)


class Connection(connection):  # type: ignore[misc]
    """Cut when nothing has come for `seconds`; none are given: never."""

    seconds: float = float("inf")

    @contextmanager
    def within(self, seconds: float | None = None) -> Iterator[Callable[[], None]]:
        """Cut the connection unless the block ends within *seconds*, or its own."""
        with _watch.within(self.fileno(), seconds or self.seconds) as again:
            yield again

    def commit(self) -> None:
        with self.within():
            super().commit()

    def rollback(self) -> None:
        with self.within():
            super().rollback()


class _Progress:
    """A file; whoever reads or writes it is not silent."""

    def __init__(self, file: Any, again: Callable[[], None]) -> None:
        self.file = file
        self.again = again

    def read(self, size: int = -1) -> Any:
        self.again()
        return self.file.read(size)

    def write(self, data: Any) -> Any:
        self.again()
        return self.file.write(data)


def listen_to_silence(engine: Any, statement: float, ping: float) -> None:
    """Let connections of *engine* be cut after *statement* seconds of silence, and be looked after

    whenever they are taken from the pool: then *ping* seconds.
    """
    from sqlalchemy import event, exc

    @event.listens_for(engine, "connect")
    def connect(made: Connection, _: Any) -> None:
        made.seconds = statement

    @event.listens_for(engine, "checkout")
    def checkout(taken: Connection, *_: Any) -> None:
        try:
            with taken.within(ping):
                engine.dialect.do_ping(taken)
        except engine.dialect.loaded_dbapi.Error as error:
            raise exc.InvalidatePoolError from error
