"""Conversions of stored values to the new type of a field, and the first value that has none.

A value converts as a load would store it: through its JSON text.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, exc

from catlog_scrapy.store.definitions import KindDefinition
from catlog_scrapy.store.sql import one, row, run, scalar

MAX_SHOWN_CHARS = 60
# More rows than a page of 8 KiB has room for.
MAX_ROWS_OF_PAGE = 300


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
        return _convert(self.source, self.was, self.now)

    @property
    def fails(self) -> str:
        """The SQL condition of a value without conversion; it may also raise DataError.

        Text and JSON convert if they can be read. Other types must not lose anything.
        """
        lost = "false"
        if not {self.was, self.now} & {"text", "jsonb"}:
            back = _convert(f"({self.converted})", self.now, self.was)
            lost = f"{back} IS DISTINCT FROM {self.source}"
        return f"{self.source} IS NOT NULL AND (({self.converted}) IS NULL OR {lost})"


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
    text = f"({source} #>> '{{}}')" if was == "jsonb" else f"(to_jsonb({source}) #>> '{{}}')"
    if now == "text":
        return text
    if now == "interval":
        return f"make_interval(secs => {text}::double precision)"
    return f"{text}::{now}"
