"""Due times, with clock changes."""

import datetime as dt
import itertools
import zoneinfo
from importlib import resources
from pathlib import Path

import pytest

from catlog_scrapy.scheduling.due import CronError, TimeZoneError, due_times, next_due


def utc(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


def due(cron: str, timezone: str, after: str, count: int) -> list[str]:
    times = itertools.islice(due_times(cron, timezone, utc(after)), count)
    return [f"{time:%m-%d %H:%M}" for time in times]


def test_next_due_time_is_after_the_given_time() -> None:
    assert next_due("0 3 * * *", "UTC", utc("2026-05-01 03:00")) == utc("2026-05-02 03:00")
    assert next_due("0 3 * * *", "UTC", utc("2026-05-01 02:59:59")) == utc("2026-05-01 03:00")


def test_due_times_follow_the_schedules_time_zone() -> None:
    assert due("0 3 * * *", "Europe/Moscow", "2026-05-01 00:00", 2) == [
        "05-02 00:00",
        "05-03 00:00",
    ]
    assert due("30 9 * * 1", "Asia/Kolkata", "2026-05-01 00:00", 1) == ["05-04 04:00"]


def test_due_times_without_clock_changes() -> None:
    times = itertools.islice(due_times("30 2 * * *", "Europe/Moscow", utc("2026-01-01")), 365)
    assert {f"{time:%H:%M}" for time in times} == {"23:30"}


# Berlin: at 02:00 on 29 March 2026 it becomes 03:00, at 03:00 on 25 October again 02:00.


def test_due_time_in_the_skipped_hour_is_due_at_its_end() -> None:
    found = due("30 2 * * *", "Europe/Berlin", "2026-03-27 12:00", 3)
    assert found == ["03-28 01:30", "03-29 01:00", "03-30 00:30"]


def test_due_time_in_the_repeated_hour_is_due_once() -> None:
    found = due("30 2 * * *", "Europe/Berlin", "2026-10-23 12:00", 3)
    assert found == ["10-24 00:30", "10-25 00:30", "10-26 01:30"]


def test_ten_minute_schedule_continues_through_clock_changes() -> None:
    for start in ("2026-03-28 22:00", "2026-10-24 22:00"):
        times = list(itertools.islice(due_times("*/10 * * * *", "Europe/Berlin", utc(start)), 40))
        steps = {latter - former for former, latter in itertools.pairwise(times)}
        assert steps == {dt.timedelta(minutes=10)}


@pytest.mark.parametrize("cron", ["30 2 * * *", "*/20 * * * *", "0 * * * *", "15 1-3 * * *"])
@pytest.mark.parametrize("start", ["2026-03-28 20:00", "2026-10-24 20:00"])
def test_due_times_do_not_depend_on_the_start(cron: str, start: str) -> None:
    """Each scheduler starts anew, and must neither skip nor repeat a due time."""
    times = list(itertools.islice(due_times(cron, "Europe/Berlin", utc(start)), 30))
    assert times == sorted(set(times))
    moment, found = utc(start), []
    while moment < times[-1]:
        upcoming = next_due(cron, "Europe/Berlin", moment)
        if upcoming not in found:
            found.append(upcoming)
        moment += dt.timedelta(minutes=5)
    assert found == times


@pytest.mark.parametrize(
    ("cron", "timezone", "message"),
    [
        ("0 3 * *", "UTC", "is not a valid cron line"),
        ("61 * * * *", "UTC", "is not a valid cron line"),
        ("", "UTC", "is not a valid cron line"),
        ("0 3 * * *", "Europe/Nowhere", "is not a known time zone"),
        ("0 3 * * *", "../etc/passwd", "is not a known time zone"),
        ("0 3 * * *", "", "is not a known time zone"),
        ("0 0 31 2 *", "UTC", "Bad day-of-month"),
        ("30 0 3 * * *", "UTC", r"\(6 fields\); use five fields"),
        ("0 3 * * * 2026", "UTC", r"\(6 fields\); use five fields"),
        ("0 0 3 * * * 2026", "UTC", r"\(7 fields\); use five fields"),
        ("@daily", "UTC", "use five fields"),
    ],
)
def test_invalid_cron_says_what_to_write(cron: str, timezone: str, message: str) -> None:
    with pytest.raises(CronError, match=message):
        next_due(cron, timezone, utc("2026-05-01"))


@pytest.mark.parametrize(
    "timezone",
    [
        "localtime",
        "posixrules",
        "Factory",
        "posix/Europe/Berlin",
        "right/Europe/Berlin",
        "europe/berlin",
        "zone.tab",
        "tzdata.zi",
        "CET-1CEST",
        "/etc/localtime",
        "US/Pacific-New",
        "",
    ],
)
def test_time_zone_that_depends_on_the_machine_is_refused(timezone: str) -> None:
    with pytest.raises(TimeZoneError, match="use an IANA name such as Europe/Moscow"):
        next_due("0 3 * * *", timezone, utc("2026-05-01"))


def test_time_zone_of_an_own_tz_path_is_refused(tmp_path: Path) -> None:
    """PYTHONTZPATH may point to a folder of zones that other machines do not have."""
    berlin = resources.files("tzdata").joinpath("zoneinfo", "Europe", "Berlin").read_bytes()
    (tmp_path / "Office").write_bytes(berlin)
    zoneinfo.reset_tzpath([str(tmp_path)])
    try:
        assert zoneinfo.ZoneInfo("Office").utcoffset(dt.datetime(2026, 1, 1))
        with pytest.raises(TimeZoneError):
            next_due("0 3 * * *", "Office", utc("2026-05-01"))
    finally:
        zoneinfo.reset_tzpath()


@pytest.mark.parametrize("timezone", ["UTC", "Etc/GMT+3", "EST5EDT", "US/Pacific", "Asia/Kolkata"])
def test_iana_time_zones_are_accepted(timezone: str) -> None:
    assert next_due("0 3 * * *", timezone, utc("2026-05-01"))


def test_blanks_around_the_five_fields_do_not_count() -> None:
    assert next_due("  0\t3 * *  * ", "UTC", utc("2026-05-01 03:00")) == utc("2026-05-02 03:00")
