"""Register of the nodes that run spiders."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import orjson
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from catlog_scrapy.exceptions import NotPossible
from catlog_scrapy.store.sql import clean, row, rows, run

# A server that no longer hears from a node gives its name back after a minute, not after the two
# hours that TCP allows. Unix sockets ignore these.
PEER_IS_GONE = """
    SET tcp_keepalives_idle = 15; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3;
    SET tcp_user_timeout = 30000; SET idle_in_transaction_session_timeout = 0"""


class NodeNameLock:
    """A node's hold on its name: a lock of the session, which the server releases with it.

    Whoever holds it is the only node of that name, so what a former one left is there to be ended.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine = engine
        self.name = name
        self._connection: Connection | None = None

    def acquire(self) -> None:
        """Take the lock, unless it is held already. Raises NotPossible where another node holds it."""
        if self._connection is not None:
            try:
                run(self._connection, "SELECT 1")
                return
            except SQLAlchemyError:
                self.release()
        connection = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        try:
            run(connection, PEER_IS_GONE)
            found = row(
                connection,
                "SELECT pg_try_advisory_lock(hashtextextended('catlog node ' || :name, 0)) AS held",
                name=self.name,
            )
            if not found or not found["held"]:
                raise NotPossible(
                    f"another node is called {self.name!r}; give this one another CATLOG_NODE"
                    " or http_port."
                )
        except BaseException:
            connection.invalidate()
            connection.close()
            raise
        self._connection = connection

    def release(self) -> None:
        """Give the name back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(SQLAlchemyError):
                connection.invalidate()  # the lock goes with the session
                connection.close()


def register(
    engine: Engine, name: str, *, url: str, pid: int, version: str, slots: int, poll: float
) -> None:
    """Write down that a node has started."""
    with engine.begin() as connection:
        run(
            connection,
            """INSERT INTO catlog.node (name, url, pid, version, slots, poll)
               VALUES (:name, :url, :pid, :version, :slots, :poll)
               ON CONFLICT (name) DO UPDATE SET url = excluded.url, pid = excluded.pid,
                   version = excluded.version, slots = excluded.slots, poll = excluded.poll,
                   running = 0, projects = '{}', state = 'up', error = NULL, error_at = NULL,
                   started_at = clock_timestamp(), polled_at = clock_timestamp()""",
            name=name,
            url=url,
            pid=pid,
            version=version,
            slots=slots,
            poll=poll,
        )


def record_poll(
    engine: Engine,
    name: str,
    *,
    running: int,
    projects: Mapping[str, Any],
    state: str = "up",
    error: str | None = None,
) -> None:
    """Write down that a node polled, what it runs, and its latest *error*; None keeps the error."""
    with engine.begin() as connection:
        run(
            connection,
            """UPDATE catlog.node SET running = :running, projects = CAST(:projects AS jsonb),
                   state = :state, polled_at = clock_timestamp(), error = coalesce(:error, error),
                   error_at = CASE WHEN CAST(:error AS text) IS NULL THEN error_at
                       ELSE clock_timestamp() END
               WHERE name = :name""",
            name=name,
            running=running,
            projects=orjson.dumps(projects).decode(),
            state=state,
            error=clean(error) if error else None,
        )


def list_nodes(engine: Engine) -> list[Mapping[str, Any]]:
    """All nodes, by name; `silence` is the seconds since the last poll.

    The state of one that should be up, but has missed five polls, and ten seconds at least, is
    `silent`. One that stopped is forgotten after a day, a silent one after a week.
    """
    with engine.connect() as connection:
        return rows(
            connection,
            """SELECT name, url, pid, version, slots, running, poll, projects, started_at,
                   polled_at, error, error_at, silence,
                   CASE WHEN state <> 'stopped' AND silence > greatest(10, 5 * poll) THEN 'silent'
                       ELSE state END AS state
               FROM (SELECT *, extract(epoch FROM clock_timestamp() - polled_at)::float AS silence
                     FROM catlog.node) AS seen
               WHERE silence < CASE state WHEN 'stopped' THEN 86400 ELSE 604800 END
               ORDER BY name""",
        )
