"""Values that psycopg2 cannot turn into Python's: they are read as PostgreSQL's text.

Columns of dates and times may hold infinity, years before 1 and after 9999, and 24:00; Python's
types hold none of them.
"""

from collections.abc import Callable
from typing import Any

import psycopg2
from psycopg2 import extensions

# Beginnings of texts that psycopg2 turns into other values: the last instant, and midnight.
MISREAD = ("infinity", "-infinity", "24:00:00")
# psycopg2's typecaster of each type, with the OIDs of the type and of its arrays (pg_type.dat).
TYPES = {
    "DATE": (extensions.PYDATE, 1082, 1182),
    "TIME": (extensions.PYTIME, 1083, 1183),
    "TIMETZ": (extensions.PYTIME, 1266, 1270),
    "TIMESTAMP": (extensions.PYDATETIME, 1114, 1115),
    "TIMESTAMPTZ": (extensions.PYDATETIMETZ, 1184, 1185),
    "INTERVAL": (extensions.PYINTERVAL, 1186, 1187),
}


def or_text(cast: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Return a typecaster that returns the text of values that *cast* cannot convert."""

    def cast_or_keep(text: str | None, cursor: Any) -> Any:
        if text is not None and text.startswith(MISREAD):
            return text
        try:
            return cast(text, cursor)
        except (ValueError, OverflowError, psycopg2.Error):
            return text

    return cast_or_keep


def _make_typecasters() -> list[Any]:
    made: list[Any] = []
    for name, (cast, oid, array_oid) in TYPES.items():
        typecaster = extensions.new_type((oid,), name, or_text(cast))
        made += [
            typecaster,
            extensions.new_array_type((array_oid,), f"{name}[]", typecaster),
        ]
    return made


TYPECASTERS = _make_typecasters()


def register_typecasters(connection: extensions.connection) -> None:
    """Read dates and times of *connection* that Python cannot hold as text."""
    for typecaster in TYPECASTERS:
        extensions.register_type(typecaster, connection)
