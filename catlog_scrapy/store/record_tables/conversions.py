"""Conversions of stored values to the new type of a field, and the first value that has none.

A value converts as a load would store it: through its JSON text. Text that a load would refuse, or
that PostgreSQL reads in another way ('now', 'infinity', '01/02/2026', 'NaN'), does not convert.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, exc

from catlog_scrapy.store.definitions import KindDefinition
from catlog_scrapy.store.sql import one, row, run, scalar

MAX_SHOWN_CHARS = 60
# More rows than a page of 8 KiB has room for.
MAX_ROWS_OF_PAGE = 300

_DATE = r"\d{4}-(0[1-9]|1[0-2])-\d\d"
_TIME = r"([01]\d|2[0-3]):[0-5]\d(:[0-5]\d(\.\d{1,6})?)?"
# A colon before a word would start a parameter.
_MIDNIGHT = r"00:00([:]00(\.0{1,6})?)?"
_NUMBER = r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*"
_INSTANT = rf"{_DATE}[Tt ]{_TIME}([Zz]|[+-]\d\d:?\d\d)"
# Regular expressions of the text that a load accepts and PostgreSQL reads alike.
_ACCEPTED_TEXTS = {
    "bigint": r"\s*[+-]?\d+\s*",
    "double precision": _NUMBER,
    "numeric": _NUMBER,
    "boolean": r"[Tt]rue|TRUE|[Ff]alse|FALSE|[TtFfYyNn01]|[Yy]es|YES|[Nn]o|NO|[Oo]n|ON|[Oo]ff|OFF",
    "date": rf"{_DATE}([Tt ]{_MIDNIGHT}[Zz]?)?",
    "time": _TIME,
    "timestamp": rf"{_DATE}([Tt ]{_TIME})?",
    "timestamptz": _INSTANT,
    "uuid": r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}|[0-9A-Fa-f]{32}",
}
_UNITS = {"unix_seconds": "second", "unix_milliseconds": "millisecond"}


@dataclass(frozen=True)
class Conversion:
    """A field of *kind* that gets the type `now`, from the SQL expression `source`.

    `source` has the type `was`: the column itself, or a part of the column `data`.
    """

    kind: KindDefinition
    field: str
    source: str
    was: str
    now: str

    @property
    def converted(self) -> str:
        """The SQL expression of the converted value."""
        if self._unit:
            return _convert_unix_time(_text(self._value, self.was), self._unit)
        return _convert(self._value, self.was, self.now)

    @property
    def fails(self) -> str:
        """The SQL condition of a value without conversion; it may also raise DataError.

        Text and JSON convert if a load would accept them. Other types must not lose anything.
        """
        value, text = self._value, _text(self._value, self.was)
        lost = "false"
        if self._unit:
            lost = f"{text} !~ '^({_NUMBER}|{_INSTANT})$'"
        elif self.now == "interval" and self.was in ("text", "jsonb"):
            # A load takes a number of seconds, but no text of a number.
            lost = f"jsonb_typeof(to_jsonb({value})) <> 'number'"
        elif self.was in ("text", "jsonb") and self.now in _ACCEPTED_TEXTS:
            lost = f"{text} !~ '^({_ACCEPTED_TEXTS[self.now]})$'"
        elif not {self.was, self.now} & {"text", "jsonb"}:
            back = _convert(f"({self.converted})", self.now, self.was)
            lost = f"{back} IS DISTINCT FROM {value}"
        if self.now == "timestamptz":
            # Every instant has a year from 1 to 9999 in UTC, so that Python can read it back.
            lost += f""" OR ({self.converted}) NOT BETWEEN timestamptz '0001-01-01 00:00:00+00'
                AND timestamptz '9999-12-31 23:59:59.999999+00'"""
        return f"({value}) IS NOT NULL AND (({self.converted}) IS NULL OR {lost})"

    @property
    def _unit(self) -> str:
        """The unit of the field's Unix times; empty for other fields."""
        type_ = self.kind.rules.get("types", {}).get(self.field, "")
        return _UNITS.get(type_, "") if self.now == "timestamptz" else ""

    @property
    def _value(self) -> str:
        """The SQL expression of the stored value; NULL for blank text if the kind says so."""
        if not self.kind.rules.get("empty_is_null") or self.was not in ("text", "jsonb"):
            return self.source
        is_text = "true" if self.was == "text" else f"jsonb_typeof({self.source}) = 'string'"
        text = _text(self.source, self.was)
        return f"CASE WHEN {is_text} AND {text} ~ '^\\s*$' THEN NULL ELSE {self.source} END"


def refused_values(connection: Connection, conversion: Conversion) -> Iterator[str]:
    """Yield a message for each table of the kind with a value that does not convert.

    Every message names the first of these values.
    """
    kind = conversion.kind
    for table, title in ((kind.table, "the record"), (kind.versions_table, "a former state of")):
        if not _has_failure(connection, table, conversion.fails, "true"):
            continue
        place = _first_failure(connection, table, conversion.fails)
        found = one(
            connection,
            f"""SELECT left(to_jsonb({conversion.source}) #>> '{{}}', {MAX_SHOWN_CHARS}) AS value,
                    concat_ws(', ', {", ".join(f'"{name}"' for name in kind.key)}) AS key
                FROM {table} WHERE ctid = CAST(:place AS tid)""",
            place=place,
        )
        yield (
            f'the field "{conversion.field}" of "{kind.name}" changed from {conversion.was} to'
            f" {conversion.now}, but {title} {found['key']} has {found['value']!r}; give the field"
            " another name, or the record type another view"
        )


def _first_failure(connection: Connection, table: str, fails: str) -> str:
    """Return the place of the first row that meets *fails*, by bisection of pages, then rows."""

    def has_failure(first: str, end: str) -> bool:
        bounds = f"ctid >= '{first}' AND ctid < '{end}'"
        return _has_failure(connection, table, fails, bounds)

    pages = scalar(
        connection,
        "SELECT pg_relation_size(:table) / current_setting('block_size')::int",
        table=table,
    )
    page = _bisect(pages, lambda first, end: has_failure(f"({first},0)", f"({end},0)"))
    number = _bisect(
        MAX_ROWS_OF_PAGE, lambda first, end: has_failure(f"({page},{first})", f"({page},{end})")
    )
    return f"({page},{number})"


def _bisect(count: int, has_failure: Callable[[int, int], bool]) -> int:
    """Return the first of *count* numbers with a failure; *has_failure* takes a range of them."""
    first, end = 0, count
    while end - first > 1:
        middle = (first + end) // 2
        if has_failure(first, middle):
            end = middle
        else:
            first = middle
    return first


def _has_failure(connection: Connection, table: str, fails: str, bounds: str) -> bool:
    try:
        with connection.begin_nested():
            return bool(
                row(connection, f"SELECT 1 FROM {table} WHERE {bounds} AND {fails} LIMIT 1")
            )
    except exc.DataError:
        return True


def set_time_zone(connection: Connection) -> None:
    """Convert times without a time zone as UTC, until the transaction ends."""
    run(connection, "SET LOCAL timezone = 'UTC'")


def _convert(source: str, was: str, now: str) -> str:
    if was == "interval":
        source = f"extract(epoch FROM {source})"
    if was == "numeric" and now == "bigint":
        source = f"trim_scale({source})"
    if now == "jsonb":
        return f"to_jsonb({source})"
    text = _text(source, was)
    if now == "text":
        return text
    if now == "interval":
        return f"make_interval(secs => {text}::double precision)"
    return f"{text}::{now}"


def _text(source: str, was: str) -> str:
    """Return the SQL expression of the JSON text of a value."""
    value = f"({source})" if was == "jsonb" else f"to_jsonb({source})"
    return f"({value} #>> '{{}}')"


def _convert_unix_time(text: str, unit: str) -> str:
    """Return the SQL expression of the instant of a Unix time.

    Former declarations have left instants as text, too. Full seconds are added apart: an interval
    is multiplied by a double, which counts microseconds exactly only until 2255.
    """
    seconds = f"({text}::numeric{' / 1000' if unit == 'millisecond' else ''})"
    return f"""CASE WHEN {text} ~ '^({_NUMBER})$' THEN timestamptz 'epoch'
        + trunc({seconds})::double precision * interval '1 second'
        + round(({seconds} - trunc({seconds})) * 1000000)::double precision
            * interval '1 microsecond'
        ELSE {text}::timestamptz END"""
