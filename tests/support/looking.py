"""Looking from outside at what catlog does: by SQL, at ports, and until it has happened."""

import random
import socket
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine, text

# No test says how fast a machine has to be: what has not happened by then never will.
WAIT_LIMIT_S = 300.0
# Backends of this database that wait for a lock: the server has databases of other tests too.
WAITING_BACKENDS = """SELECT l.pid FROM pg_locks l JOIN pg_stat_activity a USING (pid)
    WHERE NOT l.granted AND a.datname = current_database()"""

THIS_DATABASE = "(SELECT oid FROM pg_database WHERE datname = current_database())"


def rows(engine: Engine, sql: str, **values: Any) -> list[Any]:
    """All rows of *sql*."""
    with engine.begin() as connection:
        return [tuple(found) for found in connection.execute(text(sql), values)]


def until(condition: Callable[[], Any], seconds: float = WAIT_LIMIT_S, what: object = "") -> Any:
    """What *condition* comes to; fail if it stays false, and say *what* is instead."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        said = what() if callable(what) else what
        assert time.monotonic() < end, f"it never happened in {seconds} s: {said}"
        time.sleep(0.05)
    return found


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, nor will be given by chance."""
    while True:
        # Below those that the kernel hands out, to other tests say, before it is used.
        port = random.randrange(20_000, 32_000)
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
