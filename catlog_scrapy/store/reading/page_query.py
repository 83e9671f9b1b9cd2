"""Queries of rows: relations, filters and orders, and the SQL that they have in common."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import UUID

from catlog_scrapy.store.views.typed import ID_COLUMN

# Parameter of a source that shows the rows as of a time.
AS_OF_PARAMETER = "CAST(:as_of AS timestamptz)"
NULL_OPERATOR = "null"
OPERATORS = {"gte": ">=", "gt": ">", "lte": "<=", "lt": "<"}


class OrderTerm(NamedTuple):
    """Column of an order. `nulls` is `FIRST`, `LAST`, or "" for PostgreSQL's default."""

    column: str
    descending: bool = False
    nulls: str = ""

    @property
    def reversed(self) -> "OrderTerm":
        """The column in the reversed order."""
        other = {"LAST": "FIRST", "FIRST": "LAST"}.get(self.nulls, "")
        return OrderTerm(self.column, not self.descending, other)

    @property
    def nulls_last(self) -> bool:
        """True if NULL sorts after all values."""
        return self.nulls == "LAST" or (not self.nulls and not self.descending)

    def __str__(self) -> str:
        direction = " DESC" if self.descending else ""
        return f't."{self.column}"{direction}' + (f" NULLS {self.nulls}" if self.nulls else "")


@dataclass(frozen=True)
class PageSource:
    """Relation to read rows from: a SELECT, or a name in double quotes.

    `columns` maps names to SQL types; columns that begin with an underscore serve ordering only.
    `order` is the default order: its columns are unique together, and every requested order ends
    with them. `has_nulls` says that these columns may be NULL. `parts` are the SELECTs whose UNION
    ALL is the relation: a page reads each of them in order, by its own index.
    """

    sql: str
    columns: Mapping[str, str]
    order: tuple[OrderTerm, ...]
    has_nulls: bool = False
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class PageQuery:
    """Query of a page: names and values that were checked against the source's columns.

    `ids` are possible ids of a record, for a source with ID_COLUMN. `equal` maps columns to the
    allowed values. `bounds` lists (column, operator of OPERATORS, value) or (column,
    NULL_OPERATOR, required or not). `search` is a text that at least one of the `searched` columns
    contains. `after` holds the order's columns, as text, of the row before the page; with
    `backwards`, of the row behind the page. `as_of` is the value of AS_OF_PARAMETER.
    """

    fields: tuple[str, ...]
    equal: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    bounds: Sequence[tuple[str, str, Any]] = ()
    search: str = ""
    searched: tuple[str, ...] = ()
    order: tuple[OrderTerm, ...] = ()
    limit: int = 100
    offset: int = 0
    after: tuple[str | None, ...] | None = None
    backwards: bool = False
    ids: tuple[UUID, ...] | None = None
    as_of: dt.datetime | None = None


def relation(sql: str) -> str:
    """Return a SELECT or the name of a relation as an item of FROM."""
    return f"({sql})" if sql.lstrip().upper().startswith(("SELECT", "WITH")) else sql


def json_row(fields: Sequence[str]) -> str:
    """Return the SQL expression of a row as JSON text, with *fields* in order."""
    listed = ", ".join(f't."{name}"' for name in fields)
    return f"(SELECT row_to_json(line)::text FROM (SELECT {listed}) AS line)"


def where_clause(conditions: Sequence[str]) -> str:
    """Return the WHERE clause of *conditions*, empty without any."""
    return "WHERE " + " AND ".join(conditions) if conditions else ""


def filter_conditions(source: PageSource, query: PageQuery) -> tuple[list[str], dict[str, Any]]:
    """Return the conditions of the rows of *query*, and their parameters."""
    conditions: list[str] = []
    values: dict[str, Any] = {}
    if AS_OF_PARAMETER in source.sql:
        values["as_of"] = query.as_of
    if query.ids is not None:
        conditions.append(f"t.{ID_COLUMN} = ANY(CAST(:ids AS uuid[]))")
        values["ids"] = list(query.ids)
    for n, (column, allowed) in enumerate(query.equal.items()):
        type_ = source.columns[column]
        if len(allowed) == 1:  # an index then also has the order of its further columns
            conditions.append(f't."{column}" = CAST(:equal_{n} AS {type_})')
            values[f"equal_{n}"] = allowed[0]
        else:
            conditions.append(f't."{column}" = ANY(CAST(:equal_{n} AS {type_}[]))')
            values[f"equal_{n}"] = list(allowed)
    for n, (column, operator, value) in enumerate(query.bounds):
        if operator == NULL_OPERATOR:
            conditions.append(f't."{column}" IS {"" if value else "NOT "}NULL')
            continue
        type_ = source.columns[column]
        conditions.append(f't."{column}" {OPERATORS[operator]} CAST(:bound_{n} AS {type_})')
        values[f"bound_{n}"] = value
    if query.search:
        held = " OR ".join(f't."{column}" ILIKE :search' for column in query.searched)
        conditions.append(f"({held})" if held else "false")
        escaped = query.search.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        values["search"] = f"%{escaped}%"
    return conditions, values


def complete_order(source: PageSource, query: PageQuery) -> tuple[OrderTerm, ...]:
    """Return the order of *query*, then that of *source* in the direction of the last column.

    One index, read forwards or backwards, then has both orders.
    """
    named = {term.column for term in query.order}
    further = [term for term in source.order if term.column not in named]
    if query.order and query.order[-1].descending:
        further = [term.reversed for term in further]
    return (*query.order, *further)


def order_by(order: Sequence[OrderTerm]) -> str:
    """Return the terms of an ORDER BY clause."""
    return ", ".join(map(str, order))
