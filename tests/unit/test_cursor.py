"""Cursors of incremental operations."""

import pytest

from catlog_scrapy.scheduling.cursor import CursorError, apply_overlap, validate_cursor


@pytest.mark.parametrize(
    ("value", "overlap", "begins"),
    [
        ("page 7", None, "page 7"),
        ("2026-01-31T00:00:30Z", 60, "2026-01-30T23:59:30Z"),
        ("2026-01-31T00:00:30+03:00", 60, "2026-01-30T23:59:30+03:00"),
        ("2026-01-31T00:00:30.250+00:00", 0.5, "2026-01-31T00:00:29.750000+00:00"),
    ],
)
def test_next_load_resumes_at_the_cursor(value: str, overlap: float | None, begins: str) -> None:
    assert apply_overlap(value, overlap) == begins


@pytest.mark.parametrize("value", ["", "a\nb", "\0", "x" * 1001, 7, None])
def test_invalid_cursor_is_refused(value: object) -> None:
    with pytest.raises(CursorError, match="is not a valid cursor"):
        validate_cursor(value, None)


@pytest.mark.parametrize("value", ["page 7", "2026-01-31T00:00:30", "12:00"])
def test_overlap_needs_a_datetime_cursor(value: str) -> None:
    assert validate_cursor(value, None) == value
    with pytest.raises(CursorError, match="not an ISO 8601 datetime"):
        validate_cursor(value, 60)
