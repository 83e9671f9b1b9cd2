"""Due schedules: one catalog for each schedule and due time."""

import datetime as dt
from dataclasses import replace
from uuid import UUID

from sqlalchemy import Connection, Engine

from catlog_scrapy.scheduling.due import CronError, due_times, next_due
from catlog_scrapy.store.batch_errors import run_each
from catlog_scrapy.store.queue.catalogs import SchemeVersion, insert_catalog
from catlog_scrapy.store.queue.schedules.locks import LockedSchedule
from catlog_scrapy.store.sql import clean, row, rows, run

# With `catch_up = "none"`, the delay after which a due time is missed. It must be longer than the
# interval at which cron runs `scrapy schedule --once`.
MISFIRE_GRACE = dt.timedelta(minutes=10)
# After years without a scheduler, only the newest missed due times get a skipped catalog.
MAX_SKIPPED_CATALOGS = 1000


def make_due(engine: Engine) -> list[UUID]:
    """Create the catalogs that are due now and return their ids.

    A due time that is passed over gets a catalog in the state `skipped`.
    """
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
    """Skip the due time of a schedule whose catalog cannot be created."""
    with engine.begin() as connection:
        schedule = _lock_due(connection, schedule_id)
        if schedule is None:
            return
        scheme = _scheme_of(connection, schedule)
        if scheme is not None:
            # Without its arguments, which may be the reason that the catalog cannot be inserted.
            bare = replace(schedule, arguments={})
            _skip(connection, bare, scheme, schedule.next_due_at, clean(f"not created: {why}"))
        _move_on(connection, schedule)


def _lock_due(connection: Connection, schedule_id: UUID) -> LockedSchedule | None:
    due = "id = :id AND enabled AND next_due_at <= clock_timestamp()"
    found = LockedSchedule.select(
        connection, f"{due} FOR NO KEY UPDATE SKIP LOCKED", id=schedule_id
    )
    return found[0] if found else None


def _scheme_of(connection: Connection, schedule: LockedSchedule) -> SchemeVersion | None:
    found = row(
        connection,
        """SELECT id, provider_id, name, includes FROM catlog.catalog_scheme
           WHERE provider_id = :provider_id AND name = :scheme_name AND retired_at IS NULL""",
        provider_id=schedule.provider_id,
        scheme_name=schedule.scheme_name,
    )
    return SchemeVersion(**found) if found else None


def _move_on(connection: Connection, schedule: LockedSchedule) -> None:
    """Set the next due time, or NULL if the cron line or time zone is invalid by now."""
    try:
        following = next_due(schedule.cron, schedule.timezone, schedule.now)
    except CronError:
        following = None
    run(
        connection,
        "UPDATE catlog.schedule SET next_due_at = :next WHERE id = :id",
        id=schedule.id,
        next=following,
    )


def _make(engine: Engine, schedule_id: UUID) -> list[UUID]:
    with engine.begin() as connection:
        schedule = _lock_due(connection, schedule_id)
        if schedule is None:
            return []
        scheme = _scheme_of(connection, schedule)
        *missed, latest = _due_until(schedule, schedule.now)
        made: list[UUID] = []
        if scheme is not None:
            for due_at in missed[-MAX_SKIPPED_CATALOGS:]:
                _skip(connection, schedule, scheme, due_at, "missed: a later time was due as well")
            made = _make_or_skip(connection, schedule, scheme, latest)
        _move_on(connection, schedule)
        return made


def _due_until(schedule: LockedSchedule, until: dt.datetime) -> list[dt.datetime]:
    """Return the due times from `next_due_at`, which is always included, up to *until*."""
    first = schedule.next_due_at or schedule.now  # never None: the schedule is due
    times = [first]
    for time in due_times(schedule.cron, schedule.timezone, first):
        if time > until:
            break
        times.append(time)
    return times


def _make_or_skip(
    connection: Connection,
    schedule: LockedSchedule,
    scheme: SchemeVersion,
    due_at: dt.datetime,
) -> list[UUID]:
    if schedule.catch_up == "none" and schedule.now - due_at > MISFIRE_GRACE:
        _skip(connection, schedule, scheme, due_at, "missed: no scheduler ran at the due time")
        return []
    if row(
        connection,
        """SELECT 1 FROM catlog.catalog WHERE schedule_id = :id AND origin = 'schedule'
               AND state IN ('waiting', 'loading', 'publishing') LIMIT 1""",
        id=schedule.id,
    ):
        _skip(connection, schedule, scheme, due_at, "skipped: the previous catalog was still open")
        return []
    made = insert_catalog(
        connection,
        scheme,
        arguments=schedule.arguments,
        origin="schedule",
        schedule_id=schedule.id,
        due_at=due_at,
    )
    return [made] if made else []


def _skip(
    connection: Connection,
    schedule: LockedSchedule,
    scheme: SchemeVersion,
    due_at: dt.datetime | None,
    error: str,
) -> None:
    insert_catalog(
        connection,
        scheme,
        arguments=schedule.arguments,
        origin="schedule",
        schedule_id=schedule.id,
        due_at=due_at,
        state="skipped",
        error=error,
    )
