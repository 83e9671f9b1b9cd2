"""What Retry-After asks for: RFC 9110, 10.2.3."""

import datetime as dt
from email.utils import format_datetime

import pytest

from catlog_scrapy.middlewares.retry_after import parse_retry_after

DATE = b"Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (b"120", 120.0),
        (b" 0 ", 0.0),
        (b"Sun, 06 Nov 1994 08:51:37 GMT", 120.0),
        # By the clock that wrote it, so a wrong one does not matter; and never backwards.
        (b"Sun, 06 Nov 1994 08:49:00 GMT", 0.0),
        (b"-5", None),
        (b"1.5", None),
        (b"soon", None),
        (b"", None),
        ("\u0663".encode(), None),
    ],
)
def test_seconds_and_dates(said: bytes, seconds: float | None) -> None:
    assert parse_retry_after(said, DATE) == seconds


def test_without_a_date_our_own_clock_counts() -> None:
    then = format_datetime(dt.datetime.now(dt.UTC) + dt.timedelta(minutes=5), usegmt=True)
    assert parse_retry_after(then.encode(), None) == pytest.approx(300, abs=10)
