"""Pages of rows, single rows and whole tables, as JSON text that PostgreSQL writes.

Rows, count and change stamp of a page come from one snapshot.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NamedTuple

from psycopg2.sql import SQL
from sqlalchemy import Connection, Engine, text

from catlog_scrapy.store.sql import rows, run, scalar, statement
from catlog_scrapy.store.views.change_stamps import CHANGE_STAMP

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
    with them. `has_nulls` says that these columns may be NULL.
    """

    sql: str
    columns: Mapping[str, str]
    order: tuple[OrderTerm, ...]
    has_nulls: bool = False


@dataclass(frozen=True)
class PageQuery:
    """Query of a page: names and values that were checked against the source's columns.

    `key` is the stored key of a record, for a source with INDEX_COLUMNS. `equal` maps columns to
    the allowed values. `bounds` lists (column, operator of OPERATORS, value) or (column,
    NULL_OPERATOR, required or not). `search` is a text that at least one of the `searched` columns
    contains. `after` holds the order's columns, as text, of the row before the page; with
    `backwards`, of the row behind the page.
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
    key: str | None = None


@dataclass(frozen=True)
class Page:
    """Rows as JSON in order, with the positions of the first and last row.

    `has_more` says that further rows follow. `stamp` is the change stamp, None without rows.
    """

    lines: list[str]
    first: tuple[str | None, ...] | None
    last: tuple[str | None, ...] | None
    has_more: bool
    stamp: str | None = None


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


def read_page(
    connection: Connection, source: PageSource, query: PageQuery, kinds: Sequence[str] = ()
) -> Page:
    """Read a page, and the change stamp of *kinds* in the same snapshot.

    The statement asks for one row more than the limit, which tells whether rows follow.
    """
    order = _complete_order(source, query)
    if query.backwards:
        order = tuple(term.reversed for term in order)
    conditions, values = _conditions(source, query)
    if query.after is not None:
        condition, position = _after_condition(source, order, query.after)
        conditions.append(condition)
        values |= position
    positions = ", ".join(f't."{term.column}"::text AS _{n}' for n, term in enumerate(order))
    stamp = "NULL"
    if kinds:
        stamp = f"({CHANGE_STAMP})"
        values["kinds"] = list(kinds)
    page = statement(
        f"""SELECT {_json(query.fields)} AS line, {stamp} AS stamp, {positions}
            FROM {_relation(source.sql)} AS t {_where(conditions)}
            ORDER BY {_order_by(order)} LIMIT :limit OFFSET :offset"""
    )
    values |= {"limit": query.limit + 1, "offset": query.offset}
    found = list(connection.execute(page, values))
    has_more = len(found) > query.limit
    found = found[: query.limit]
    if query.backwards:
        found.reverse()
    return Page(
        [line[0] for line in found],
        tuple(found[0][2:]) if found else None,
        tuple(found[-1][2:]) if found else None,
        has_more,
        found[0].stamp if found else None,
    )


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
    named = {term.column for term in query.order}
    return (*query.order, *(term for term in source.order if term.column not in named))


def _order_by(order: Sequence[OrderTerm]) -> str:
    return ", ".join(map(str, order))


def _conditions(source: PageSource, query: PageQuery) -> tuple[list[str], dict[str, Any]]:
    conditions: list[str] = []
    values: dict[str, Any] = {}
    if query.key is not None:
        # The first column of the index is the provider.
        conditions.append(
            "t._key = :key AND t._provider = ANY(ARRAY(SELECT p.id FROM catlog.provider p))"
        )
        values["key"] = query.key
    for n, (column, allowed) in enumerate(query.equal.items()):
        conditions.append(f't."{column}" = ANY(CAST(:equal_{n} AS {source.columns[column]}[]))')
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


def _after_condition(
    source: PageSource, order: Sequence[OrderTerm], position: Sequence[str | None]
) -> tuple[str, dict[str, Any]]:
    """Return the SQL condition that a row comes after *position* in *order*."""
    values: dict[str, Any] = {f"after_{n}": value for n, value in enumerate(position)}
    casts = [f"CAST(:after_{n} AS {source.columns[term.column]})" for n, term in enumerate(order)]
    columns = [f't."{term.column}"' for term in order]
    # An index supports the comparison of rows. It loses NULLs, so the columns must have none.
    of_source = [term.column for term in order] == [term.column for term in source.order]
    if of_source and len({term.descending for term in order}) == 1 and not source.has_nulls:
        operator = "<" if order[0].descending else ">"
        return f"({', '.join(columns)}) {operator} ({', '.join(casts)})", values
    alternatives = []
    for n, term in enumerate(order):
        same = [f"{columns[m]} IS NOT DISTINCT FROM {casts[m]}" for m in range(n)]
        if position[n] is None:
            behind = "false" if term.nulls_last else f"{columns[n]} IS NOT NULL"
        else:
            behind = f"{columns[n]} {'<' if term.descending else '>'} {casts[n]}"
            if term.nulls_last:
                behind = f"({behind} OR {columns[n]} IS NULL)"
        alternatives.append(f"({' AND '.join([*same, behind])})")
    return f"({' OR '.join(alternatives)})", values
