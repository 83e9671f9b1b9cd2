"""Pages of rows, as JSON text that PostgreSQL writes.

Rows, count and change stamp of a page come from one snapshot.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, text

from catlog_scrapy.store.reading.keyset import Branch, page_branches
from catlog_scrapy.store.reading.page_query import (
    OrderTerm,
    PageQuery,
    PageSource,
    complete_order,
    filter_conditions,
    json_row,
    order_by,
    relation,
    where_clause,
)
from catlog_scrapy.store.sql import Condition, rows, scalar, statement
from catlog_scrapy.store.views.change_stamps import CHANGE_STAMP


@dataclass(frozen=True)
class Page:
    """Rows as JSON in order, with the positions of the first and last row.

    `has_more` says that further rows follow. `stamp`, `total` and `is_proven` are the values of
    PageExtras.
    """

    lines: list[str]
    first: tuple[str | None, ...] | None
    last: tuple[str | None, ...] | None
    has_more: bool
    stamp: str | None = None
    total: int | None = None
    is_proven: bool | None = None


@dataclass(frozen=True)
class PageExtras:
    """Values to read in the statement of a page: of its snapshot, without a further round trip.

    `kinds` are those of the change stamp, None without a stamp. `counts` says whether to count the
    rows of all pages. `proof` is the condition that the caller's credentials are valid.
    """

    kinds: Sequence[str] | None = None
    counts: bool = False
    proof: Condition | None = None


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """Open a read-only connection whose statements all see one snapshot."""
    read_only = engine.execution_options(
        isolation_level="REPEATABLE READ", postgresql_readonly=True
    )
    with read_only.connect() as connection:
        yield connection


def describe(connection: Connection, sql: str) -> dict[str, str]:
    """Return the columns of a SELECT or of a relation with their SQL types."""
    result = connection.execute(text(f"SELECT * FROM {relation(sql)} AS t LIMIT 0"))
    described: Any = result.cursor.description if result.cursor else ()
    types = {
        found["oid"]: found["name"]
        for found in rows(
            connection,
            """SELECT oid::bigint AS oid, format_type(oid, NULL) AS name FROM pg_type
               WHERE oid = ANY(CAST(:oids AS oid[]))""",
            oids=[part.type_code for part in described],
        )
    }
    return {part.name: types[part.type_code] for part in described}


def read_page(connection: Connection, source: PageSource, query: PageQuery) -> Page:
    """Read a page."""
    sql, values = page_statement(source, query)
    return page_of(query, [tuple(found) for found in connection.execute(statement(sql), values)])


def page_statement(
    source: PageSource, query: PageQuery, extras: PageExtras | None = None
) -> tuple[str, dict[str, Any]]:
    """Return the statement of a page, and its parameters. `page_of` takes its rows.

    The statement asks for one row more than the limit, which tells whether rows follow.
    """
    order = _page_order(source, query)
    conditions, values = filter_conditions(source, query)
    stamp = total = is_proven = "NULL"
    if extras and extras.kinds is not None:
        stamp = f"({CHANGE_STAMP})"
        values["kinds"] = list(extras.kinds)
    if extras and extras.counts:
        total = f"(SELECT count(*) FROM {relation(source.sql)} AS t {where_clause(conditions)})"
    if extras and extras.proof:
        is_proven = extras.proof.sql
        values |= extras.proof.values
    selects, positions = _page_selects(source, query, order, conditions)
    values |= positions | {"limit": query.limit + 1, "offset": query.offset}
    columns = ", ".join(f't."{term.column}"::text' for term in order)
    # A subquery: PostgreSQL would otherwise write the JSON of all rows before it sorts them. The
    # join makes one row, without a line, of an empty page, for the values of *extras*.
    sql = f"""SELECT CASE WHEN t."#" THEN {json_row(query.fields)} END AS line,
                  {stamp} AS stamp, {total} AS total, {is_proven} AS is_proven, {columns}
              FROM (VALUES (1)) AS always LEFT JOIN (
                  {" UNION ALL ".join(selects)} LIMIT :limit OFFSET :offset) AS t ON true"""
    # The join keeps the order of a single SELECT.
    return sql if len(selects) == 1 else f"{sql} ORDER BY {order_by(order)}", values


def _page_selects(
    source: PageSource, query: PageQuery, order: Sequence[OrderTerm], conditions: Sequence[str]
) -> tuple[list[str], dict[str, Any]]:
    """Return the SELECTs of a page's rows, to be read one after the other, and their parameters."""
    branches = [
        Branch([*conditions, *branch.conditions], branch.order)
        for branch in page_branches(source, order, query.after)
    ]
    columns = dict.fromkeys([*query.fields, *(term.column for term in order)])
    # A column's name cannot begin with "#".
    named = ", ".join(['true AS "#"', *(f't."{name}"' for name in columns)])
    selects = [
        f"SELECT {named} FROM {_rows_of(source, branch)} ORDER BY {', '.join(branch.order)}"
        for branch in branches
    ]
    values: dict[str, Any] = {f"after_{n}": value for n, value in enumerate(query.after or ())}
    if len(selects) > 1:
        selects = [f"({select} LIMIT :all)" for select in selects]
    if len(selects) > 1 or source.parts:
        values["all"] = query.limit + 1 + query.offset
    return selects, values


def page_of(query: PageQuery, found: Sequence[tuple[Any, ...]]) -> Page:
    """Return the page whose statement returned the rows *found*."""
    line, *extras = found[0][:4]
    if line is None:
        return Page([], None, None, False, *extras)
    has_more = len(found) > query.limit
    found = found[: query.limit]
    if query.backwards:
        found = found[::-1]
    lines = [row[0] for row in found]
    return Page(lines, found[0][4:], found[-1][4:], has_more, *extras)


def count(connection: Connection, source: PageSource, query: PageQuery) -> int:
    """Return the number of rows of *query* on all pages."""
    conditions, values = filter_conditions(source, query)
    return int(
        scalar(
            connection,
            f"SELECT count(*) FROM {relation(source.sql)} AS t {where_clause(conditions)}",
            **values,
        )
    )


def _page_order(source: PageSource, query: PageQuery) -> tuple[OrderTerm, ...]:
    """Return the order in which a page's rows are read: from its cursor on."""
    order = complete_order(source, query)
    return tuple(term.reversed for term in order) if query.backwards else order


def _rows_of(source: PageSource, branch: Branch) -> str:
    """Return the relation `t` of a branch's rows; of each part, the first in order."""
    where = where_clause(branch.conditions)
    if not source.parts:
        return f"{relation(source.sql)} AS t {where}"
    parts = [
        f"(SELECT * FROM ({part}) AS t {where} ORDER BY {', '.join(branch.order)} LIMIT :all)"
        for part in source.parts
    ]
    return f"({' UNION ALL '.join(parts)}) AS t"
