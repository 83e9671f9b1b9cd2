"""Due times that a clock ahead has used or set, brought back to what the cron lines say."""

import datetime as dt
import logging
from typing import NamedTuple

from sqlalchemy import Connection, Engine

from catlog_scrapy.scheduling.due import CronError, next_due
from catlog_scrapy.store.sql import rows, run

logger = logging.getLogger(__name__)

# A catalog that was made at most this long before its due time keeps it.
MAX_EARLY = dt.timedelta(minutes=1)


class Upcoming(NamedTuple):
    """The next due time of a cron line, as of the time `after`; invalid lines have none."""

    after: dt.datetime
    due_at: dt.datetime | None

    def holds(self, now: dt.datetime) -> bool:
        """Return whether the due time is still the next one at *now*."""
        return self.after <= now and (self.due_at is None or now < self.due_at)


class _UpcomingCache:
    """Next due times by cron line and time zone: they change rarely, and the look comes often."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str], Upcoming] = {}

    def get(self, cron: str, timezone: str, now: dt.datetime) -> dt.datetime | None:
        found = self.known.get((cron, timezone))
        if found is None or not found.holds(now):
            try:
                found = Upcoming(now, next_due(cron, timezone, now))
            except CronError:
                found = Upcoming(now, None)
            self.known[cron, timezone] = found
        return found.due_at


_upcoming = _UpcomingCache()


def bring_back_due_times(engine: Engine) -> None:
    """Bring back the due times that are later than the next one of their cron line.

    The server's clock was ahead when they were set. The due times in between become free again.
    """
    with engine.begin() as connection:
        for line in rows(
            connection,
            """SELECT cron, timezone, max(next_due_at) AS latest, now() AS now
               FROM catlog.schedule
               WHERE enabled AND next_due_at > now() AND isfinite(next_due_at)
               GROUP BY cron, timezone""",
        ):
            due_at = _upcoming.get(line["cron"], line["timezone"], line["now"])
            if due_at and line["latest"] > due_at:
                _bring_back(connection, line["cron"], line["timezone"], due_at)


def _bring_back(connection: Connection, cron: str, timezone: str, due_at: dt.datetime) -> None:
    moved = rows(
        connection,
        """UPDATE catlog.schedule d SET next_due_at = :due
           FROM (SELECT id, next_due_at FROM catlog.schedule
                 WHERE enabled AND cron = :cron AND timezone = :timezone
                   AND next_due_at > :due AND isfinite(next_due_at)
                 ORDER BY id FOR NO KEY UPDATE SKIP LOCKED) AS former
           WHERE d.id = former.id
           RETURNING CAST(d.id AS text) AS id, d.scheme_name || ' ' || d.name AS title,
               former.next_due_at AS former""",
        cron=cron,
        timezone=timezone,
        due=due_at,
    )
    for schedule in moved:
        logger.warning(
            "the database's clock was ahead: the schedule %s was to be due at %s, and is due at %s",
            schedule["title"],
            schedule["former"],
            due_at,
        )
    _free_due_times(connection, [schedule["id"] for schedule in moved])


def _free_due_times(connection: Connection, schedules: list[str]) -> None:
    """Free the due times that lie ahead: their loads have not been made in time.

    Skipped catalogs are deleted. Others stay as loads that no due time asked for; one whose data is
    valid for its due time keeps that as the time of its data.
    """
    values = {"schedules": schedules, "early": MAX_EARLY}
    run(
        connection,
        """DELETE FROM catlog.catalog WHERE schedule_id = ANY(CAST(:schedules AS uuid[]))
               AND due_at > now() AND state = 'skipped'""",
        **values,
    )
    run(
        connection,
        """UPDATE catlog.catalog SET schedule_id = NULL,
               due_at = CASE WHEN as_of = due_at THEN due_at END
           WHERE id IN (SELECT id FROM catlog.catalog
                        WHERE schedule_id = ANY(CAST(:schedules AS uuid[]))
                          AND due_at > now() + :early
                        ORDER BY id FOR NO KEY UPDATE)""",
        **values,
    )
    run(
        connection,
        """DELETE FROM catlog.pruned_due_time WHERE schedule_id = ANY(CAST(:schedules AS uuid[]))
               AND day > CAST(now() AT TIME ZONE 'UTC' AS date)""",
        **values,
    )
