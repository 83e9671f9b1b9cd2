"""Backfill: catalogs for past due times."""

import datetime as dt
from uuid import UUID
from zoneinfo import ZoneInfo

import orjson
from sqlalchemy import Connection, Engine

from catlog_scrapy.exceptions import NotFound, NotPossible
from catlog_scrapy.scheduling.due import due_times
from catlog_scrapy.store.queue.catalogs import (
    SchemeVersion,
    find_scheme,
    insert_catalog,
    uses_due_at,
)
from catlog_scrapy.store.queue.schedules.locks import LockedSchedule
from catlog_scrapy.store.sql import row

# Due times of one backfill, which is one transaction: about 10 s of work.
MAX_BACKFILL = 10_000


def backfill(
    engine: Engine, provider: str, scheme: str, first: dt.date, last: dt.date
) -> tuple[list[UUID], int]:
    """Create catalogs for the due times of the days *first* to *last*, in each schedule's zone.

    Returns the new ids, and the number of due times that already had a catalog. A skipped catalog
    becomes a waiting one. Raises NotFound, or NotPossible if the scheme has no schedule, if its
    arguments do not use {due_at}: today's answer of a source is not data of the past, or if there
    are more than MAX_BACKFILL due times.
    """
    made: list[UUID] = []
    present = 0
    with engine.begin() as connection:
        found = find_scheme(connection, provider, scheme)
        schedules = LockedSchedule.select(
            connection,
            """provider_id = :provider AND scheme_name = :scheme AND enabled
               ORDER BY name FOR NO KEY UPDATE""",
            provider=found.provider_id,
            scheme=scheme,
        )
        if not schedules:
            raise NotPossible(f"{provider}/{scheme} has no schedule; its due times are unknown.")
        for schedule in schedules:
            if not uses_due_at(connection, found.id, schedule.arguments):
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


def _due_on(schedule: LockedSchedule, first: dt.date, last: dt.date) -> list[dt.datetime]:
    """Return the past due times with a local date from *first* to *last*."""
    zone = ZoneInfo(schedule.timezone)
    start = dt.datetime.combine(first, dt.time.min, zone).astimezone(dt.UTC)
    end = dt.datetime.combine(last + dt.timedelta(days=1), dt.time.min, zone).astimezone(dt.UTC)
    times: list[dt.datetime] = []
    for time in due_times(schedule.cron, schedule.timezone, start - dt.timedelta(microseconds=1)):
        if time >= end or time > schedule.now:
            break
        if len(times) == MAX_BACKFILL:
            raise NotPossible(
                f"more than {MAX_BACKFILL} due times between {first} and {last}; give fewer days."
            )
        times.append(time)
    return times


def _backfill_one(
    connection: Connection,
    schedule: LockedSchedule,
    scheme: SchemeVersion,
    due_at: dt.datetime,
) -> UUID | None:
    made = insert_catalog(
        connection,
        scheme,
        arguments=schedule.arguments,
        origin="backfill",
        schedule_id=schedule.id,
        due_at=due_at,
    )
    if made:
        return made
    revived = row(
        connection,
        """UPDATE catlog.catalog SET state = 'waiting', origin = 'backfill', error = NULL,
               finished_at = NULL, scheme_id = :scheme, as_of = due_at,
               arguments = CAST(:arguments AS jsonb), is_full = :is_full
           WHERE schedule_id = :schedule AND due_at = :due_at AND state = 'skipped'
           RETURNING id""",
        schedule=schedule.id,
        scheme=scheme.id,
        due_at=due_at,
        arguments=orjson.dumps(schedule.arguments).decode(),
        is_full=not schedule.arguments,
    )
    return revived["id"] if revived else None
