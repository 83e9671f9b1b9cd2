"""What is due becomes a catalog, once for each schedule and due time."""

import datetime as dt
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine

from catlog_scrapy.scheduling.due import CronError, due_times, next_due
from catlog_scrapy.store.batch_errors import run_each
from catlog_scrapy.store.queue.catalogs import insert
from catlog_scrapy.store.sql import clean, row, rows, run

# With `catch_up = "none"`, how late a scheduler may look and still make the catalog: more than the
# longest pause between two runs of `scrapy schedule --once` by cron that makes sense.
MISFIRE_GRACE = dt.timedelta(minutes=10)
# A schedule that was off for years leaves a trace of so many of its due times, the newest.
MAX_SKIPPED_CATALOGS = 1000


def make_due(engine: Engine) -> list[UUID]:
    """Make the catalogs that are due now; their ids. Skipped due times leave a skipped catalog."""
    with engine.connect() as connection:
        due = rows(
            connection,
            "SELECT id FROM catlog.schedule WHERE enabled AND next_due_at <= clock_timestamp()",
        )
    made = run_each(
        [schedule["id"] for schedule in due],
        lambda schedule_id: _make(engine, schedule_id),
        lambda schedule_id, why: _pass_over(engine, schedule_id, why),
    )
    return [catalog_id for some in made for catalog_id in some]


def _pass_over(engine: Engine, schedule_id: UUID, why: str) -> None:
    """Let a schedule of which nothing can be made go on with its next due time."""
    with engine.begin() as connection:
        schedule = _lock_due(connection, schedule_id)
        scheme = schedule and _scheme_of(connection, schedule)
        if schedule is None:
            return
        if scheme is not None:
            # Its arguments may be what is wrong; a catalog would show them.
            bare = {**schedule, "arguments": {}}
            _skip(connection, bare, scheme, schedule["next_due_at"], clean(f"not made: {why}"))
        _move_on(connection, schedule)


def _lock_due(connection: Connection, schedule_id: UUID) -> Mapping[str, Any] | None:
    return row(
        connection,
        """SELECT *, clock_timestamp() AS now FROM catlog.schedule
           WHERE id = :id AND enabled AND next_due_at <= clock_timestamp()
           FOR NO KEY UPDATE SKIP LOCKED""",
        id=schedule_id,
    )


def _scheme_of(connection: Connection, schedule: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return row(
        connection,
        """SELECT * FROM catlog.catalog_scheme
           WHERE provider_id = :provider_id AND name = :scheme_name AND retired_at IS NULL""",
        provider_id=schedule["provider_id"],
        scheme_name=schedule["scheme_name"],
    )


def _move_on(connection: Connection, schedule: Mapping[str, Any]) -> None:
    """To the next due time; to none, where its cron line or time zone cannot be read any more."""
    try:
        following = next_due(schedule["cron"], schedule["timezone"], schedule["now"])
    except CronError:
        following = None
    run(
        connection,
        "UPDATE catlog.schedule SET next_due_at = :next WHERE id = :id",
        id=schedule["id"],
        next=following,
    )


def _make(engine: Engine, schedule_id: UUID) -> list[UUID]:
    with engine.begin() as connection:
        schedule = _lock_due(connection, schedule_id)
        if schedule is None:
            return []
        scheme = _scheme_of(connection, schedule)
        *missed, latest = _due_until(schedule, schedule["now"])
        made: list[UUID] = []
        if scheme is not None:
            for due_at in missed[-MAX_SKIPPED_CATALOGS:]:
                _skip(connection, schedule, scheme, due_at, "missed: a later one was due as well")
            made = _make_or_skip(connection, schedule, scheme, latest)
        _move_on(connection, schedule)
        return made


def _due_until(schedule: Mapping[str, Any], until: dt.datetime) -> list[dt.datetime]:
    """The due times from `next_due_at` up to *until*; the first one is always among them."""
    first: dt.datetime = schedule["next_due_at"]
    times = [first]
    for time in due_times(schedule["cron"], schedule["timezone"], first):
        if time > until:
            break
        times.append(time)
    return times


def _make_or_skip(
    connection: Connection,
    schedule: Mapping[str, Any],
    scheme: Mapping[str, Any],
    due_at: dt.datetime,
) -> list[UUID]:
    if schedule["catch_up"] == "none" and schedule["now"] - due_at > MISFIRE_GRACE:
        _skip(connection, schedule, scheme, due_at, "missed: no scheduler ran when it was due")
        return []
    if row(
        connection,
        """SELECT 1 FROM catlog.catalog WHERE schedule_id = :id AND origin = 'schedule'
               AND state IN ('waiting', 'loading', 'publishing') LIMIT 1""",
        id=schedule["id"],
    ):
        _skip(connection, schedule, scheme, due_at, "skipped: the former catalog was still open")
        return []
    made = insert(
        connection,
        scheme,
        arguments=schedule["arguments"],
        origin="schedule",
        schedule_id=schedule["id"],
        due_at=due_at,
    )
    return [made] if made else []


def _skip(
    connection: Connection,
    schedule: Mapping[str, Any],
    scheme: Mapping[str, Any],
    due_at: dt.datetime,
    error: str,
) -> None:
    insert(
        connection,
        scheme,
        arguments=schedule["arguments"],
        origin="schedule",
        schedule_id=schedule["id"],
        due_at=due_at,
        state="skipped",
        error=error,
    )
