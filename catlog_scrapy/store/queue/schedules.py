"""What is due becomes a catalog, once for each schedule and due time."""

import datetime as dt
from collections.abc import Mapping
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import orjson
from sqlalchemy import Connection, Engine

from catlog_scrapy.exceptions import NotFound, NotPossible
from catlog_scrapy.scheduling.due import CronError, due_times, next_due
from catlog_scrapy.store.batch_errors import each
from catlog_scrapy.store.queue.catalogs import find_scheme, insert, uses_due_at
from catlog_scrapy.store.sql import clean, row, rows, run

# With `catch_up = "none"`, how late a scheduler may look and still make the catalog: more than the
# longest pause between two runs of `scrapy schedule --once` by cron that makes sense.
MISFIRE_GRACE = dt.timedelta(minutes=10)
# A schedule that was off for years leaves a trace of so many of its due times, the newest.
MOST_TRACES = 1000


def make_due(engine: Engine) -> list[UUID]:
    """Make the catalogs that are due now; their ids. Skipped due times leave a skipped catalog."""
    with engine.connect() as connection:
        due = rows(
            connection,
            "SELECT id FROM catlog.schedule WHERE enabled AND next_due_at <= clock_timestamp()",
        )
    made = each(
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
            for due_at in missed[-MOST_TRACES:]:
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


def backfill(
    engine: Engine, provider: str, scheme: str, first: dt.date, last: dt.date
) -> tuple[list[UUID], int]:
    """Catalogs for the due times of the days *first* to *last*, in each schedule's time zone.

    Returns the ids made, and how many due times already had a catalog; a skipped one is made
    good. Raises NotFound, or NotPossible where the scheme has no schedule, or where its arguments
    do not use {due_at}: what a source says today is no data of the past.
    """
    made: list[UUID] = []
    present = 0
    with engine.begin() as connection:
        found = find_scheme(connection, provider, scheme)
        schedules = rows(
            connection,
            """SELECT *, clock_timestamp() AS now FROM catlog.schedule
               WHERE provider_id = :provider AND scheme_name = :scheme AND enabled
               ORDER BY name FOR NO KEY UPDATE""",
            provider=found["provider_id"],
            scheme=scheme,
        )
        if not schedules:
            raise NotPossible(f"{provider}/{scheme} has no schedule; its due times are unknown.")
        for schedule in schedules:
            if not uses_due_at(connection, found["id"], schedule["arguments"]):
                raise NotPossible(
                    f"{provider}/{scheme} does not use {{due_at}} in its arguments, so its source"
                    " would answer with today's data; use scrapy load."
                )
            for due_at in _due_on(schedule, first, last):
                catalog_id = _backfill_one(connection, schedule, found, due_at)
                if catalog_id:
                    made.append(catalog_id)
                else:
                    present += 1
    if not made and not present:
        raise NotFound(f"{provider}/{scheme} was not due between {first} and {last}.")
    return made, present


def _due_on(schedule: Mapping[str, Any], first: dt.date, last: dt.date) -> list[dt.datetime]:
    """The past due times whose local date lies between *first* and *last*."""
    zone = ZoneInfo(schedule["timezone"])
    start = dt.datetime.combine(first, dt.time.min, zone).astimezone(dt.UTC)
    end = dt.datetime.combine(last + dt.timedelta(days=1), dt.time.min, zone).astimezone(dt.UTC)
    times = []
    for time in due_times(
        schedule["cron"], schedule["timezone"], start - dt.timedelta(microseconds=1)
    ):
        if time >= end or time > schedule["now"]:
            break
        times.append(time)
    return times


def _backfill_one(
    connection: Connection,
    schedule: Mapping[str, Any],
    scheme: Mapping[str, Any],
    due_at: dt.datetime,
) -> UUID | None:
    made = insert(
        connection,
        scheme,
        arguments=schedule["arguments"],
        origin="backfill",
        schedule_id=schedule["id"],
        due_at=due_at,
    )
    if made:
        return made
    revived = row(
        connection,
        """UPDATE catlog.catalog SET state = 'waiting', origin = 'backfill', error = NULL,
               finished_at = NULL, scheme_id = :scheme, as_of = due_at,
               arguments = CAST(:arguments AS jsonb), whole = :whole
           WHERE schedule_id = :schedule AND due_at = :due_at AND state = 'skipped'
           RETURNING id""",
        schedule=schedule["id"],
        scheme=scheme["id"],
        due_at=due_at,
        arguments=orjson.dumps(schedule["arguments"]).decode(),
        whole=not schedule["arguments"],
    )
    return revived["id"] if revived else None
