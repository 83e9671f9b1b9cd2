"""Due times of a cron line, clock changes included."""

import datetime as dt
from collections.abc import Iterator
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError


class CronError(ValueError):
    """A cron line or time zone that cannot be read, or that is never due. Says what to write."""


def due_times(cron: str, timezone: str, after: dt.datetime) -> Iterator[dt.datetime]:
    """The due times of *cron* in *timezone* later than *after*, as instants in UTC, ascending.

    Clock changes are Debian cron's, as cronsim has them: 02:30 is due at 03:00 where the clock
    skips it, and once where the clock repeats it. Raises CronError.
    """
    try:
        zone = ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise CronError(
            f"unknown time zone {timezone!r}; write one such as Europe/Moscow"
        ) from error
    try:
        times = CronSim(cron, after.astimezone(zone))
    except CronSimError as error:
        raise CronError(
            f"bad cron line {cron!r} ({error}); write five fields such as 0 3 * * *"
        ) from error
    for time in times:
        instant = time.astimezone(dt.UTC)
        # In the hour that the clock repeats, a wall time may lie before *after*.
        if instant > after:
            yield instant


def next_due(cron: str, timezone: str, after: dt.datetime) -> dt.datetime:
    """The first due time later than *after*, in UTC. Raises CronError where there is none."""
    time = next(due_times(cron, timezone, after), None)
    if time is None:
        raise CronError(f"the cron line {cron!r} is never due; write a date that exists")
    return time
