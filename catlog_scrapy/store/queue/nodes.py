"""Register of the nodes that run spiders."""

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import orjson
from sqlalchemy import Engine, func
from sqlalchemy.exc import SQLAlchemyError

from catlog_scrapy.exceptions import NotPossible
from catlog_scrapy.processes import is_alive, process_identity
from catlog_scrapy.store.sql import call, clean, rows, run, upsert

# A node that was killed frees its name after this time, or after three polls; on its own machine
# at once.
NAME_LEASE_S = 10.0


class NameTaken(NotPossible):
    """Name of another node.

    `is_running` says that its process runs on this machine; otherwise it may have been killed.
    """

    def __init__(self, name: str, *, is_running: bool) -> None:
        super().__init__(
            f"another node has the name {name!r}; use another CATLOG_NODE or http_port."
        )
        self.is_running = is_running


class NodeNameLease:
    """Lease of a node's name by this process, renewed by `acquire`.

    Only one node holds a name, so attempts that a former process of it left running can be ended.
    A row and not a session lock, because PgBouncer shares sessions.
    """

    def __init__(self, engine: Engine, name: str, *, poll_interval: float) -> None:
        self.engine = engine
        self.name = name
        self.lease = max(NAME_LEASE_S, 3 * poll_interval)
        self._renewed_at = -math.inf

    def acquire(self) -> None:
        """Take the lease, or renew it. Raises NameTaken if another node holds it."""
        began_at = time.monotonic()
        if began_at < self._renewed_at + self.lease / 3:
            return
        holder = self._take(None)
        if holder is not None and is_alive(holder) is False:
            holder = self._take(holder)
        if holder is not None:
            raise NameTaken(self.name, is_running=bool(is_alive(holder)))
        self._renewed_at = began_at

    def _take(self, ended: str | None) -> str | None:
        """Take a lease that is free, expired, or of the *ended* process.

        Returns the other holder if there is one. A lease that expires later than a lease lasts is
        from a time when the database's clock was wrong.
        """
        found = call(
            self.engine,
            """WITH taken AS (
                   INSERT INTO catlog.node_lease AS held (name, holder, lease_expires_at)
                   VALUES (:name, :holder, clock_timestamp() + make_interval(secs => :lease))
                   ON CONFLICT (name) DO UPDATE SET
                       holder = excluded.holder, lease_expires_at = excluded.lease_expires_at
                   WHERE held.holder IN (excluded.holder, :ended)
                      OR held.lease_expires_at NOT BETWEEN clock_timestamp()
                         AND clock_timestamp() + 10 * make_interval(secs => :lease)
                   RETURNING name)
               SELECT EXISTS (SELECT 1 FROM taken) AS is_taken,
                   (SELECT holder FROM catlog.node_lease WHERE name = :name) AS holder""",
            name=self.name,
            holder=process_identity(),
            ended=ended,
            lease=self.lease,
        )
        return None if found["is_taken"] else found["holder"] or ""

    def release(self) -> None:
        """Release the name."""
        self._renewed_at = -math.inf
        with suppress(SQLAlchemyError), self.engine.begin() as connection:
            run(
                connection,
                "DELETE FROM catlog.node_lease WHERE name = :name AND holder = :holder",
                name=self.name,
                holder=process_identity(),
            )


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
