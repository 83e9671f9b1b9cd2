"""Newest due times: the same as the end of all due times, in every time zone."""

import datetime as dt
from itertools import takewhile

from hypothesis import given
from hypothesis import strategies as st

from catlog_scrapy.scheduling.due import due_times, newest_due

CRONS = st.sampled_from(
    ["*/7 * * * *", "30 2 * * *", "0 * * * *", "15,45 1-3 * * *", "30 */2 * * 0", "* 2 1 * *"]
)
ZONES = st.sampled_from(
    ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo"]
)
# Times around the clock changes of the zones.
STARTS = st.datetimes(dt.datetime(2026, 3, 1), dt.datetime(2026, 11, 10)).map(
    lambda time: time.replace(tzinfo=dt.UTC)
)
SPANS = st.timedeltas(dt.timedelta(0), dt.timedelta(days=20))


@given(CRONS, ZONES, STARTS, SPANS, st.integers(1, 40))
def test_newest_due_times_are_the_last_of_all(
    cron: str, zone: str, after: dt.datetime, span: dt.timedelta, limit: int
) -> None:
    until = after + span
    every = list(takewhile(lambda time: time <= until, due_times(cron, zone, after)))
    assert newest_due(cron, zone, after, until, limit) == every[-limit:]
