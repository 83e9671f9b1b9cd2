"""Pages of rows, single rows and whole tables, as JSON text that PostgreSQL writes.

Rows, count and change stamp of a page come from one snapshot.
"""

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NamedTuple
from uuid import UUID

from psycopg2.sql import SQL
from sqlalchemy import Connection, Engine, text

from catlog_scrapy.store.sql import Condition, rows, run, scalar, statement
from catlog_scrapy.store.views.change_stamps import CHANGE_STAMP
from catlog_scrapy.store.views.typed import ID_COLUMN

# Statement timeout of the COPY of a whole resource.
COPY_TIMEOUT_S = 3600
# JSON text never contains these control characters, so COPY writes each line unchanged.
RAW_COPY_FORMAT = "FORMAT csv, QUOTE E'\\x01', DELIMITER E'\\x02'"
# Types whose JSON text has no line breaks between values.
ON_ONE_LINE = frozenset(
    {
        "bigint",
        "boolean",
        "character varying",
        "date",
        "double precision",
        "integer",
        "interval",
        "jsonb",
        "numeric",
        "real",
        "smallint",
        "text",
        "timestamp with time zone",
        "timestamp without time zone",
        "uuid",
    }
)
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
    result = connection.execute(text(f"SELECT * FROM {_relation(sql)} AS t LIMIT 0"))
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
    conditions, values = _conditions(source, query)
    stamp = total = is_proven = "NULL"
    if extras and extras.kinds is not None:
        stamp = f"({CHANGE_STAMP})"
        values["kinds"] = list(extras.kinds)
    if extras and extras.counts:
        total = f"(SELECT count(*) FROM {_relation(source.sql)} AS t {_where(conditions)})"
    if extras and extras.proof:
        is_proven = extras.proof.sql
        values |= extras.proof.values
    selects, positions = _page_selects(source, query, order, conditions)
    values |= positions | {"limit": query.limit + 1, "offset": query.offset}
    columns = ", ".join(f't."{term.column}"::text' for term in order)
    # A subquery: PostgreSQL would otherwise write the JSON of all rows before it sorts them. The
    # join makes one row, without a line, of an empty page, for the values of *extras*.
    sql = f"""SELECT CASE WHEN t."#" THEN {_json(query.fields)} END AS line,
                  {stamp} AS stamp, {total} AS total, {is_proven} AS is_proven, {columns}
              FROM (VALUES (1)) AS always LEFT JOIN (
                  {" UNION ALL ".join(selects)} LIMIT :limit OFFSET :offset) AS t ON true"""
    # The join keeps the order of a single SELECT.
    return sql if len(selects) == 1 else f"{sql} ORDER BY {_order_by(order)}", values


def _page_selects(
    source: PageSource, query: PageQuery, order: Sequence[OrderTerm], conditions: Sequence[str]
) -> tuple[list[str], dict[str, Any]]:
    """Return the SELECTs of a page's rows, to be read one after the other, and their parameters."""
    branches = [
        _Branch([*conditions, *branch.conditions], branch.order)
        for branch in _branches(source, order, query.after)
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
    conditions, values = _conditions(source, query)
    return int(
        scalar(
            connection,
            f"SELECT count(*) FROM {_relation(source.sql)} AS t {_where(conditions)}",
            **values,
        )
    )


def copy_rows(
    connection: Connection, source: PageSource, query: PageQuery, *, csv: bool, to: BinaryIO
) -> None:
    """Write all rows of *query* to the file *to*, as lines of JSON or as CSV."""
    conditions, values = _conditions(source, query)
    fields = ", ".join(f't."{name}"' for name in query.fields)
    columns = fields if csv else f"{_on_one_line(source, query)} AS line"
    written = text(
        f"""SELECT {columns} FROM {_relation(source.sql)} AS t
            {_where(conditions)} ORDER BY {_order_by(_complete_order(source, query))}"""
    ).bindparams(**values)
    compiled = written.compile(connection.engine)
    run(connection, f"SET LOCAL statement_timeout = '{COPY_TIMEOUT_S}s'")
    driver = connection.connection.driver_connection
    if driver is None:
        raise RuntimeError("the connection has no driver connection; this is a bug.")
    with driver.cursor() as cursor:
        select = cursor.mogrify(str(compiled), compiled.params).decode()
        form = "FORMAT csv, HEADER" if csv else RAW_COPY_FORMAT
        cursor.copy_expert(SQL(f"COPY ({select}) TO STDOUT WITH ({form})").string, to)


def _relation(sql: str) -> str:
    return f"({sql})" if sql.lstrip().upper().startswith(("SELECT", "WITH")) else sql


def _json(fields: Sequence[str]) -> str:
    """Return the SQL expression of a row as JSON text, with *fields* in order."""
    listed = ", ".join(f't."{name}"' for name in fields)
    return f"(SELECT row_to_json(line)::text FROM (SELECT {listed}) AS line)"


def _on_one_line(source: PageSource, query: PageQuery) -> str:
    """Return the SQL expression of a row as JSON text without line breaks.

    Values of type json, or of types that contain json, may have line breaks between their parts.
    Within strings JSON escapes line breaks.
    """
    json = _json(query.fields)
    if ON_ONE_LINE.issuperset(source.columns[name] for name in query.fields):
        return json
    return f"replace(replace({json}, E'\\n', ' '), E'\\r', ' ')"


def _where(conditions: Sequence[str]) -> str:
    return "WHERE " + " AND ".join(conditions) if conditions else ""


def _complete_order(source: PageSource, query: PageQuery) -> tuple[OrderTerm, ...]:
    """Return the order of *query*, then that of *source* in the direction of the last column.

    One index, read forwards or backwards, then has both orders.
    """
    named = {term.column for term in query.order}
    further = [term for term in source.order if term.column not in named]
    if query.order and query.order[-1].descending:
        further = [term.reversed for term in further]
    return (*query.order, *further)


def _page_order(source: PageSource, query: PageQuery) -> tuple[OrderTerm, ...]:
    """Return the order in which a page's rows are read: from its cursor on."""
    order = _complete_order(source, query)
    return tuple(term.reversed for term in order) if query.backwards else order


def _order_by(order: Sequence[OrderTerm]) -> str:
    return ", ".join(map(str, order))


def _conditions(source: PageSource, query: PageQuery) -> tuple[list[str], dict[str, Any]]:
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


def _rows_of(source: PageSource, branch: "_Branch") -> str:
    """Return the relation `t` of a branch's rows; of each part, the first in order."""
    where = _where(branch.conditions)
    if not source.parts:
        return f"{_relation(source.sql)} AS t {where}"
    parts = [
        f"(SELECT * FROM ({part}) AS t {where} ORDER BY {', '.join(branch.order)} LIMIT :all)"
        for part in source.parts
    ]
    return f"({' UNION ALL '.join(parts)}) AS t"


class _Branch(NamedTuple):
    """Rows that a page reads in the order of an index: WHERE conditions, and ORDER BY terms."""

    conditions: list[str]
    order: list[str]


def _branches(
    source: PageSource, order: Sequence[OrderTerm], after: Sequence[str | None] | None
) -> list[_Branch]:
    """Return the branches of a page in *order*, which begins after the position *after*.

    An index has NULLs at one end, the requested order maybe at the other. So rows with and without
    a value in the first column are read one after the other, and only as far as the page needs.
    """
    first, rest = order[0], order[1:]
    column = f't."{first.column}"'
    of_rest = [str(term) for term in rest]
    if not source.has_nulls and first.column in {term.column for term in source.order}:
        condition = [] if after is None else [_after_value(source, order, after)]
        return [_Branch(condition, [str(first), *of_rest])]
    direction = " DESC" if first.descending else ""
    values = _Branch([f"{column} IS NOT NULL"], [f"{column}{direction}", *of_rest])
    nulls = _Branch([f"{column} IS NULL"], of_rest or [column])
    branches = [values, nulls] if first.nulls_last else [nulls, values]
    if after is None:
        return branches
    if after[0] is None:
        nulls.conditions.append(_after_rest(source, order, after, 1))
    else:
        values.conditions.append(_after_value(source, order, after))
    started = nulls if after[0] is None else values
    return branches[branches.index(started) :]


def _after_value(
    source: PageSource, order: Sequence[OrderTerm], position: Sequence[str | None]
) -> str:
    """Return the condition of a row after *position*, whose first column has a value.

    An index supports the comparison of the first column, or of rows in one direction.
    """
    columns = [f't."{term.column}"' for term in order]
    casts = [_after_cast(source, order, n) for n in range(len(order))]
    operator = "<" if order[0].descending else ">"
    of_source = [term.column for term in order] == [term.column for term in source.order]
    if of_source and len({term.descending for term in order}) == 1 and not source.has_nulls:
        return f"({', '.join(columns)}) {operator} ({', '.join(casts)})"
    rest = _after_rest(source, order, position, 1)
    return (
        f"({columns[0]} {operator}= {casts[0]} AND ({columns[0]} {operator} {casts[0]} OR {rest}))"
    )


def _after_rest(
    source: PageSource, order: Sequence[OrderTerm], position: Sequence[str | None], start: int
) -> str:
    """Return the condition that the columns of *order* from *start* on come after *position*."""
    alternatives = []
    for n in range(start, len(order)):
        term, column, cast = order[n], f't."{order[n].column}"', _after_cast(source, order, n)
        same = [
            f't."{order[m].column}" IS NOT DISTINCT FROM {_after_cast(source, order, m)}'
            for m in range(start, n)
        ]
        if position[n] is None:
            behind = "false" if term.nulls_last else f"{column} IS NOT NULL"
        else:
            behind = f"{column} {'<' if term.descending else '>'} {cast}"
            if term.nulls_last:
                behind = f"({behind} OR {column} IS NULL)"
        alternatives.append(f"({' AND '.join([*same, behind])})")
    return f"({' OR '.join(alternatives)})" if alternatives else "false"


def _after_cast(source: PageSource, order: Sequence[OrderTerm], number: int) -> str:
    return f"CAST(:after_{number} AS {source.columns[order[number].column]})"
