"""Due times of cron lines, with clock changes."""

import datetime as dt
from collections import deque
from collections.abc import Iterator
from functools import cache
from importlib import resources
from itertools import takewhile
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

CRON_FIELDS = 5
# The zone of a machine that nobody has set up.
UNSET_ZONE = "Factory"


class CronError(ValueError):
    """Invalid cron line, or a cron line that is never due."""


class TimeZoneError(CronError):
    """Unknown time zone of a cron line."""


def due_times(cron: str, timezone: str, after: dt.datetime) -> Iterator[dt.datetime]:
    """Generate the due times of *cron* in *timezone* after *after*, in UTC and ascending.

    cronsim follows Debian's cron at clock changes: 02:30 is due at 03:00 when the clock skips that
    hour, and once when the clock repeats it. Raises CronError.
    """
    zone = _zone(timezone)
    if len(cron.split()) > CRON_FIELDS:
        # cronsim reads the first of six fields as seconds, other programs the last one as years.
        raise CronError(
            f"{cron!r} is not a valid cron line ({len(cron.split())} fields); use five fields such"
            " as 0 3 * * *"
        )
    try:
        times = CronSim(cron, after.astimezone(zone))
    except CronSimError as error:
        raise CronError(
            f"{cron!r} is not a valid cron line ({error}); use five fields such as 0 3 * * *"
        ) from error
    for time in times:
        instant = time.astimezone(dt.UTC)
        # In a repeated hour cronsim may return an instant before *after*.
        if instant > after:
            yield instant


def _zone(timezone: str) -> ZoneInfo:
    """Return a time zone that is the same on all machines. Raises TimeZoneError."""
    if timezone not in _zone_names():
        raise TimeZoneError(
            f"{timezone!r} is not a known time zone; use an IANA name such as Europe/Moscow"
        )
    return ZoneInfo(timezone)


@cache
def _zone_names() -> frozenset[str]:
    """Return the IANA names, which the package tzdata lists.

    The files of an operating system have more names: `localtime` and `posixrules` are whatever that
    machine is set to, and `posix/` and `right/` are not installed everywhere.
    """
    listed = resources.files("tzdata").joinpath("zones").read_text("utf-8").split()
    return frozenset(listed) - {UNSET_ZONE}


def next_due(cron: str, timezone: str, after: dt.datetime) -> dt.datetime:
    """Return the first due time after *after*, in UTC. Raises CronError."""
    time = next(due_times(cron, timezone, after), None)
    if time is None:
        raise CronError(f"the cron line {cron!r} is never due; use a date that exists")
    return time


def newest_due(
    cron: str, timezone: str, after: dt.datetime, until: dt.datetime, limit: int
) -> list[dt.datetime]:
    """Return the last *limit* due times after *after* and up to *until*, ascending.

    The search goes back from *until* in growing steps: a cron line of every minute has half a
    million due times in a year. Raises CronError.
    """
    span = dt.timedelta(days=1)
    while True:
        start = max(after, until - span)
        times = takewhile(lambda time: time <= until, due_times(cron, timezone, start))
        newest = deque(times, maxlen=limit)
        if start == after or len(newest) == limit:
            return list(newest)
        span *= 2
