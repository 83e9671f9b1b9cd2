"""How far an incremental operation has read, as text that its source understands."""

import datetime as dt

MAX_LENGTH = 1000


class CursorError(ValueError):
    """A cursor that cannot be kept. Its text is the reason."""


def validate_cursor(value: object, overlap: float | None) -> str:
    """*value*, if it can be kept: text and, with an *overlap* (seconds), an instant.

    Raises CursorError.
    """
    if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= MAX_LENGTH:
        raise CursorError(
            f"{value!r:.100} is no cursor; yield Cursor(text), at most {MAX_LENGTH} letters"
        )
    if overlap is not None:
        apply_overlap(value, overlap)
    return value


def apply_overlap(value: str, overlap: float | None) -> str:
    """Where to go on from: *value*, less *overlap* (seconds) where it is an instant.

    Written as *value* is: `2026-01-31T10:00:00Z` with an overlap of 60 is `2026-01-31T09:59:00Z`.
    Raises CursorError where that cannot be.
    """
    if overlap is None:
        return value
    try:
        instant = dt.datetime.fromisoformat(value)
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None:
        raise CursorError(
            f"{value!r:.100} is no ISO 8601 instant with its offset, which an operation with"
            " an overlap needs for its cursor"
        )
    try:
        earlier = (instant - dt.timedelta(seconds=overlap)).isoformat()
    except OverflowError as error:
        raise CursorError(f"{value!r:.100} is too long ago") from error
    return earlier.removesuffix("+00:00") + "Z" if value.endswith("Z") else earlier
