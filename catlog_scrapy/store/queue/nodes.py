"""Register of the nodes that run spiders."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import orjson
from sqlalchemy import Connection, Engine, func
from sqlalchemy.exc import SQLAlchemyError

from catlog_scrapy.exceptions import NotPossible
from catlog_scrapy.store.sql import call, clean, rows, run, scalar, upsert

# A server that no longer hears from a node frees its name after a minute, not after the two hours
# that TCP allows. Unix sockets ignore these settings.
PEER_IS_GONE = """
    SET tcp_keepalives_idle = 15; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3;
    SET tcp_user_timeout = 30000; SET idle_in_transaction_session_timeout = 0"""


class NodeNameLock:
    """Session lock on a node's name, which the server releases when the session ends.

    Only one node holds a name, so attempts that a former process of it left running can be ended.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine = engine
        self.name = name
        self._connection: Connection | None = None

    def acquire(self) -> None:
        """Take the lock, or check that it is held. Raises NotPossible if another node holds it."""
        if self._connection is not None:
            try:
                run(self._connection, "SELECT 1")
                return
            except SQLAlchemyError:
                self.release()
        connection = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        try:
            run(connection, PEER_IS_GONE)
            if not scalar(
                connection,
                "SELECT pg_try_advisory_lock(hashtextextended('catlog node ' || :name, 0))",
                name=self.name,
            ):
                raise NotPossible(
                    f"another node has the name {self.name!r}; use another CATLOG_NODE"
                    " or http_port."
                )
        except BaseException:
            connection.invalidate()
            connection.close()
            raise
        self._connection = connection

    def release(self) -> None:
        """Release the name."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(SQLAlchemyError):
                connection.invalidate()  # ends the session, and the lock with it
                connection.close()


def register(
    engine: Engine,
    name: str,
    *,
    url: str,
    pid: int,
    version: str,
    slots: int,
    poll: float,
    tags: Sequence[str] = (),
) -> None:
    """Record that a node has started."""
    from catlog_scrapy.models import Node  # slow to import, and `scrapy nodes` only reads

    with engine.begin() as connection:
        upsert(
            connection,
            Node,
            {
                "name": name,
                "url": url,
                "pid": pid,
                "version": version,
                "slots": slots,
                "tags": list(tags),
                "poll": poll,
                "running": 0,
                "projects": {},
                "state": "up",
                "error": None,
                "error_at": None,
                "started_at": func.clock_timestamp(),
                "polled_at": func.clock_timestamp(),
            },
            conflict=["name"],
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
    """Record that a node has polled, its running attempts, and its *error*; None keeps the last.

    The commit does not wait for the disk: the next poll writes the row again.
    """
    call(
        engine,
        """WITH polled AS (
               UPDATE catlog.node SET running = :running, projects = CAST(:projects AS jsonb),
                   state = :state, polled_at = clock_timestamp(), error = coalesce(:error, error),
                   error_at = CASE WHEN CAST(:error AS text) IS NULL THEN error_at
                       ELSE clock_timestamp() END
               WHERE name = :name)
           SELECT set_config('synchronous_commit', 'off', true)""",
        name=name,
        running=running,
        projects=orjson.dumps(projects).decode(),
        state=state,
        error=clean(error) if error else None,
    )


def list_nodes(engine: Engine) -> list[Mapping[str, Any]]:
    """Return all nodes, by name; `silence` is the seconds since the last poll.

    A node that has missed five polls, and at least ten seconds, has the state `silent`. A stopped
    node is listed for a day, a silent node for a week.
    """
    with engine.connect() as connection:
        return rows(
            connection,
            """SELECT name, url, pid, version, slots, running, tags, poll, projects, started_at,
                   polled_at, error, error_at, silence,
                   CASE WHEN state <> 'stopped' AND silence > greatest(10, 5 * poll) THEN 'silent'
                       ELSE state END AS state
               FROM (SELECT *, extract(epoch FROM clock_timestamp() - polled_at)::float AS silence
                     FROM catlog.node) AS seen
               WHERE silence < CASE state WHEN 'stopped' THEN 86400 ELSE 604800 END
               ORDER BY name""",
        )
