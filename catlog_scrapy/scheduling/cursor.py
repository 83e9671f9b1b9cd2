"""Cursors of incremental operations: validation, and the overlap between two loads."""

import datetime as dt

MAX_CURSOR_CHARS = 1000


class CursorError(ValueError):
    """Cursor that cannot be stored; the message is the reason."""


def validate_cursor(value: object, overlap: float | None) -> str:
    """Return *value* if it is a valid cursor: text and, with an *overlap* (seconds), a datetime.

    Raises CursorError.
    """
    if (
        not isinstance(value, str)
        or not value.isprintable()
        or not 0 < len(value) <= MAX_CURSOR_CHARS
    ):
        raise CursorError(
            f"{value!r:.100} is not a valid cursor; yield Cursor(text) with 1 to"
            f" {MAX_CURSOR_CHARS} printable characters"
        )
    if overlap is not None:
        apply_overlap(value, overlap)
    return value


def apply_overlap(value: str, overlap: float | None) -> str:
    """Return the cursor to resume from: *value*, less *overlap* (seconds) if there is one.

    The result has the notation of *value*: `2026-01-31T10:00:00Z` with an overlap of 60 becomes
    `2026-01-31T09:59:00Z`. Raises CursorError for a value that is not a datetime with its offset.
    """
    if overlap is None:
        return value
    try:
        instant = dt.datetime.fromisoformat(value)
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None:
        raise CursorError(
            f"{value!r:.100} is not an ISO 8601 datetime with its offset; an operation with an"
            " overlap needs one as its cursor"
        )
    try:
        earlier = (instant - dt.timedelta(seconds=overlap)).isoformat()
    except OverflowError as error:
        raise CursorError(f"{value!r:.100} is too early for the overlap") from error
    return earlier.removesuffix("+00:00") + "Z" if value.endswith("Z") else earlier
