"""Due schedules: one catalog for each schedule and due time."""

import datetime as dt
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple, Self
from uuid import UUID

from sqlalchemy import Connection, Engine, exc

from catlog_scrapy.db.engine import reason
from catlog_scrapy.redaction import secret_hint
from catlog_scrapy.scheduling.due import CronError, due_times, newest_due
from catlog_scrapy.store.batch_errors import FAULTS, is_outage, run_each
from catlog_scrapy.store.queue.instances import DUE_AT_PLACEHOLDER
from catlog_scrapy.store.queue.schedules.clock import bring_back_due_times
from catlog_scrapy.store.sql import clean, load_sql, rows, run

logger = logging.getLogger(__name__)

# With `catch_up = "none"`, the delay after which a due time is missed. It must be longer than the
# interval at which cron runs `scrapy schedule --once`.
MISFIRE_GRACE = dt.timedelta(minutes=10)
# After years without a scheduler, only the newest missed due times get a skipped catalog.
MAX_SKIPPED_CATALOGS = 1000
# Bounds of one transaction: 0.1 to 0.3 s of work.
MAX_SCHEDULES, MAX_CATALOGS = 500, 2000

MISSED_LATER = "missed: a later time was due as well"
MISSED_OFF = "missed: no scheduler ran at the due time"
STILL_OPEN = "skipped: the previous catalog was still open"


class DueSchedule(NamedTuple):
    """A due schedule whose row is locked. `scheme_id` is NULL for a scheme that is gone."""

    id: UUID
    cron: str
    timezone: str
    arguments: dict[str, str]
    catch_up: str
    due_at: dt.datetime
    now: dt.datetime
    provider: str
    secrets: list[str]
    scheme_id: UUID | None
    uses_due_at: bool

    @property
    def is_dated(self) -> bool:
        """Return whether the arguments of the schedule's catalogs contain the due time."""
        given = (str(value) for value in self.arguments.values())
        return self.uses_due_at or any(DUE_AT_PLACEHOLDER in value for value in given)


@dataclass
class DueCatalogs:
    """Columns of the catalogs that a step inserts, and the next due times of its schedules."""

    schedules: list[str] = field(default_factory=list)
    schemes: list[str] = field(default_factory=list)
    times: list[dt.datetime] = field(default_factory=list)
    dated: list[bool] = field(default_factory=list)
    bare: list[bool] = field(default_factory=list)
    errors: list[str | None] = field(default_factory=list)
    following: dict[str, dt.datetime | None] = field(default_factory=dict)

    def add(self, schedule: DueSchedule, due_at: dt.datetime, error: str | None = None) -> None:
        """Add the catalog of a due time, to be skipped if there is an *error*."""
        self._add(schedule, due_at, error, is_bare=False)

    def add_without_arguments(self, schedule: DueSchedule, error: str) -> None:
        """Add a skipped catalog without the arguments, which may be the reason of the *error*."""
        self._add(schedule, schedule.due_at, clean(f"not created: {error}"), is_bare=True)

    def _add(
        self, schedule: DueSchedule, due_at: dt.datetime, error: str | None, *, is_bare: bool
    ) -> None:
        if schedule.scheme_id is None:
            return
        self.schedules.append(str(schedule.id))
        self.schemes.append(str(schedule.scheme_id))
        self.times.append(due_at)
        self.dated.append(schedule.uses_due_at if is_bare else schedule.is_dated)
        self.bare.append(is_bare)
        self.errors.append(error)

    def store(self, connection: Connection) -> list[UUID]:
        """Insert the catalogs, move the schedules on, and return the catalogs that wait."""
        made = []
        if self.schedules:
            columns = {
                name: getattr(self, name)
                for name in ("schedules", "schemes", "times", "dated", "bare", "errors")
            }
            made = rows(connection, load_sql(__name__, "insert_due"), **columns)
        run(
            connection,
            """UPDATE catlog.schedule d SET next_due_at = g.next
               FROM unnest(CAST(:ids AS uuid[]), CAST(:times AS timestamptz[])) AS g (id, next)
               WHERE d.id = g.id""",
            ids=list(self.following),
            times=list(self.following.values()),
        )
        return [catalog["id"] for catalog in made if catalog["state"] == "waiting"]


class StepResult(NamedTuple):
    """Catalogs that a step made; `more` says that further schedules may be due."""

    made: list[UUID]
    more: bool

    @classmethod
    def of(cls, batches: Sequence[Self]) -> Self:
        """Return the results of all *batches* as the last step."""
        return cls([made for batch in batches for made in batch.made], more=False)


def make_due(engine: Engine) -> list[UUID]:
    """Create the catalogs that are due now and return their ids.

    A due time that is passed over gets a catalog in the state `skipped`.
    """
    return [catalog_id for made in make_due_in_steps(engine) for catalog_id in made]


def make_due_in_steps(engine: Engine) -> Iterator[list[UUID]]:
    """Create the catalogs that are due now, and yield the ids of each transaction."""
    bring_back_due_times(engine)
    more = True
    while more:
        made, more = _make_many(engine)
        yield made


def _make_many(engine: Engine) -> StepResult:
    """Run a step; after an error, run it for each schedule alone, and leave the rest."""
    try:
        return _make(engine)
    except (exc.DBAPIError, *FAULTS) as error:
        if is_outage(error):
            raise
        logger.warning("due schedules are made one by one: %s", reason(error))
    with engine.connect() as connection:
        due = rows(
            connection,
            """SELECT id FROM catlog.schedule WHERE enabled AND next_due_at <= now()
               ORDER BY next_due_at, id LIMIT :limit""",
            limit=MAX_SCHEDULES,
        )
    return StepResult.of(
        run_each(
            [schedule["id"] for schedule in due],
            lambda schedule_id: _make(engine, schedule_id),
            lambda schedule_id, why: _pass_over(engine, schedule_id, why),
        )
    )


def _make(engine: Engine, only: UUID | None = None) -> StepResult:
    """Make the catalogs of the first due schedules, or of *only* one, in one transaction."""
    catalogs = DueCatalogs()
    with engine.begin() as connection:
        due = _lock_due(connection, only)
        open_schedules = _with_open_catalog(connection, due)
        for schedule in due:
            if len(catalogs.times) >= MAX_CATALOGS:
                break
            _add_due_times(catalogs, schedule, is_open=schedule.id in open_schedules)
        made = catalogs.store(connection) if due else []
    more = only is None and (len(due) == MAX_SCHEDULES or len(catalogs.following) < len(due))
    return StepResult(made, more)


def _pass_over(engine: Engine, schedule_id: UUID, why: str) -> None:
    """Skip the due time of a schedule whose catalog cannot be created."""
    catalogs = DueCatalogs()
    with engine.begin() as connection:
        for schedule in _lock_due(connection, schedule_id):
            catalogs.add_without_arguments(schedule, why)
            catalogs.following[str(schedule.id)] = _following(schedule)
            catalogs.store(connection)


def _lock_due(connection: Connection, only: UUID | None) -> list[DueSchedule]:
    found = rows(
        connection,
        load_sql(__name__, "select_due"),
        ids=None if only is None else [str(only)],
        limit=MAX_SCHEDULES,
        due_at=DUE_AT_PLACEHOLDER,
    )
    return [DueSchedule(**schedule) for schedule in found]


def _with_open_catalog(connection: Connection, due: Sequence[DueSchedule]) -> set[UUID]:
    """Return the locked schedules that have an open catalog.

    Only a statement after the lock sees the catalogs of the scheduler that held it before.
    """
    if not due:
        return set()
    found = rows(
        connection,
        """SELECT DISTINCT schedule_id FROM catlog.catalog
           WHERE schedule_id = ANY(CAST(:ids AS uuid[])) AND origin = 'schedule'
             AND state IN ('waiting', 'loading', 'publishing')""",
        ids=[str(schedule.id) for schedule in due],
    )
    return {catalog["schedule_id"] for catalog in found}


def _add_due_times(catalogs: DueCatalogs, schedule: DueSchedule, *, is_open: bool) -> None:
    """Add the catalogs of all due times of a schedule up to now."""
    try:
        *missed, latest = _due_times(schedule)
    except CronError as error:
        catalogs.following[str(schedule.id)] = None
        catalogs.add_without_arguments(schedule, str(error))
        return
    catalogs.following[str(schedule.id)] = _first_due(
        schedule.cron, schedule.timezone, latest if not missed else schedule.now
    )
    refused = sorted(set(schedule.secrets).intersection(schedule.arguments))
    if refused:
        hint = secret_hint(schedule.provider, refused[0])
        catalogs.add_without_arguments(
            schedule, f"the argument {refused[0]!r} {hint}; leave it out here."
        )
        return
    for due_at in missed:
        catalogs.add(schedule, due_at, MISSED_LATER)
    if schedule.catch_up == "none" and schedule.now - latest > MISFIRE_GRACE:
        catalogs.add(schedule, latest, MISSED_OFF)
    else:
        catalogs.add(schedule, latest, STILL_OPEN if is_open else None)


def _due_times(schedule: DueSchedule) -> list[dt.datetime]:
    """Return the newest due times up to now; the first is due whatever the cron line says now."""
    following = _first_due(schedule.cron, schedule.timezone, schedule.due_at)
    if following is None or following > schedule.now:
        return [schedule.due_at]
    limit = MAX_SKIPPED_CATALOGS + 1
    later = newest_due(schedule.cron, schedule.timezone, schedule.due_at, schedule.now, limit)
    return [schedule.due_at, *later][-limit:]


@lru_cache(1000)
def _first_due(cron: str, timezone: str, after: dt.datetime) -> dt.datetime | None:
    """Return the first due time after *after*, or None without one. Raises CronError.

    Schedules that are due together often have one cron line.
    """
    return next(due_times(cron, timezone, after), None)


def _following(schedule: DueSchedule) -> dt.datetime | None:
    """Return the next due time, or None if the cron line or time zone is invalid by now."""
    try:
        return _first_due(schedule.cron, schedule.timezone, schedule.now)
    except CronError:
        return None
