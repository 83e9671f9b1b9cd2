"""Observation from outside: rows, ports, and waiting for events."""

import random
import socket
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine, text

# Generous, because no test may depend on the speed of the machine.
WAIT_LIMIT_S = 300.0
# Backends of this database that wait for a lock: the server has databases of other tests too.
WAITING_BACKENDS = """SELECT l.pid FROM pg_locks l JOIN pg_stat_activity a USING (pid)
    WHERE NOT l.granted AND a.datname = current_database()"""

THIS_DATABASE = "(SELECT oid FROM pg_database WHERE datname = current_database())"


def rows(engine: Engine, sql: str, **values: Any) -> list[Any]:
    """Return all rows of *sql*."""
    with engine.begin() as connection:
        return [tuple(found) for found in connection.execute(text(sql), values)]


def until(condition: Callable[[], Any], seconds: float = WAIT_LIMIT_S, what: object = "") -> Any:
    """Wait until *condition* is true, and return its value; fail with the message *what*."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        message = what() if callable(what) else what
        assert time.monotonic() < end, f"it never happened in {seconds} s: {message}"
        time.sleep(0.05)
    return found


def free_port() -> int:
    """Return a free port of 127.0.0.1 that the kernel does not hand out."""
    while True:
        # Below the ephemeral ports, which the kernel may give to another test.
        port = random.randrange(20_000, 32_000)
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
