"""Retry-After header (RFC 9110, 10.2.3)."""

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
        # The Date header of the same clock cancels a wrong clock; a past date means no delay.
        (b"Sun, 06 Nov 1994 08:49:00 GMT", 0.0),
        (b"-5", None),
        (b"1.5", None),
        (b"soon", None),
        (b"", None),
        ("\u0663".encode(), None),
    ],
)
def test_retry_after_as_seconds_and_as_date(said: bytes, seconds: float | None) -> None:
    assert parse_retry_after(said, DATE) == seconds


def test_retry_after_without_date_header_uses_the_local_clock() -> None:
    then = format_datetime(dt.datetime.now(dt.UTC) + dt.timedelta(minutes=5), usegmt=True)
    assert parse_retry_after(then.encode(), None) == pytest.approx(300, abs=10)
