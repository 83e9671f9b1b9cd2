"""Rows for readers: pages, single rows and whole tables, as JSON that PostgreSQL itself writes.

A page is one snapshot: rows, count and stamp of one moment, old or new, never mixed.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NamedTuple

from psycopg2.sql import SQL
from sqlalchemy import Connection, Engine, text

from catlog_scrapy.store.sql import row, rows, run, statement
from catlog_scrapy.store.views.change_stamps import CHANGE_STAMP

# Seconds that the database may take to hand over a whole resource.
COPY_TIMEOUT_S = 3600
# Neither has a meaning in JSON text: with them COPY writes a line of it as it is.
RAW_COPY_FORMAT = "FORMAT csv, QUOTE E'\\x01', DELIMITER E'\\x02'"
# Types whose JSON has no line break between values.
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
    """One column of an order; `nulls` are `FIRST`, `LAST`, or where PostgreSQL puts them."""

    column: str
    descending: bool = False
    nulls: str = ""

    @property
    def reversed(self) -> "OrderTerm":
        """The same in the order that is read from its end."""
        other = {"LAST": "FIRST", "FIRST": "LAST"}.get(self.nulls, "")
        return OrderTerm(self.column, not self.descending, other)

    @property
    def nulls_last(self) -> bool:
        """Whether a NULL comes behind all values."""
        return self.nulls == "LAST" or (not self.nulls and not self.descending)

    def __str__(self) -> str:
        direction = " DESC" if self.descending else ""
        return f't."{self.column}"{direction}' + (f" NULLS {self.nulls}" if self.nulls else "")


@dataclass(frozen=True)
class PageSource:
    """A relation that rows are read from: a SELECT, or a name in double quotes.

    `columns` maps names to SQL types; those that begin with an underscore are for order alone.
    `order` is the order that rows are in unless asked otherwise: its columns are unique together,
    and whatever order is asked for ends with them. They may be NULL where the source `has_nulls`.
    """

    sql: str
    columns: Mapping[str, str]
    order: tuple[OrderTerm, ...]
    has_nulls: bool = False


@dataclass(frozen=True)
class PageQuery:
    """What is asked of a source: names and values that were checked against its columns.

    `key` is the stored key of a record, for a source with the columns of the records' index.
    `equal` maps columns to the values that they may have, `bounds` lists (column, operator of
    OPERATORS, value), or (column, NULL, whether it has to be). `search` is a text that one of
    `searched` holds. `after` are the texts of the order's columns in the row that the page begins
    behind; `backwards`, that it ends before.
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
    """Rows as JSON, in order; the positions of the first and last; whether there are more.

    `stamp` is that of the kinds it was read with; a page without rows has none.
    """

    lines: list[str]
    first: tuple[str | None, ...] | None
    last: tuple[str | None, ...] | None
    has_more: bool
    stamp: str | None = None


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """A connection on which all statements see one moment, and none changes anything."""
    reading = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    with reading.connect() as connection:
        yield connection


def describe(connection: Connection, sql: str) -> dict[str, str]:
    """The columns of a SELECT, or of a relation, with their SQL types."""
    answer = connection.execute(text(f"SELECT * FROM {_relation(sql)} AS t LIMIT 0"))
    described: Any = answer.cursor.description if answer.cursor else ()
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
    connection: Connection, source: PageSource, question: PageQuery, kinds: Sequence[str] = ()
) -> Page:
    """The rows that *question* asks for; one more is looked for, to know whether there are more.

    With the stamp of *kinds* at the same moment.
    """
    order = _whole_order(source, question)
    if question.backwards:
        order = tuple(term.reversed for term in order)
    conditions, values = _conditions(source, question)
    if question.after is not None:
        condition, positions = _behind(source, order, question.after)
        conditions.append(condition)
        values |= positions
    marks = ", ".join(f't."{term.column}"::text AS _{n}' for n, term in enumerate(order))
    stamp = "NULL"
    if kinds:
        stamp = f"({CHANGE_STAMP})"
        values["kinds"] = list(kinds)
    asked = statement(
        f"""SELECT {_json(question.fields)} AS line, {stamp} AS stamp, {marks}
            FROM {_relation(source.sql)} AS t {_where(conditions)}
            ORDER BY {_ordered(order)} LIMIT :limit OFFSET :offset"""
    )
    values |= {"limit": question.limit + 1, "offset": question.offset}
    found = list(connection.execute(asked, values))
    has_more = len(found) > question.limit
    found = found[: question.limit]
    if question.backwards:
        found.reverse()
    return Page(
        [line[0] for line in found],
        tuple(found[0][2:]) if found else None,
        tuple(found[-1][2:]) if found else None,
        has_more,
        found[0].stamp if found else None,
    )


def count(connection: Connection, source: PageSource, question: PageQuery) -> int:
    """How many rows there are of those that *question* asks for, on all pages."""
    conditions, values = _conditions(source, question)
    found = row(
        connection,
        f"SELECT count(*) AS n FROM {_relation(source.sql)} AS t {_where(conditions)}",
        **values,
    )
    return int(found["n"]) if found else 0


def copy_rows(
    connection: Connection, source: PageSource, question: PageQuery, *, csv: bool, to: BinaryIO
) -> None:
    """Write all rows that *question* asks for *to* a file: a line of JSON each, or CSV."""
    conditions, values = _conditions(source, question)
    fields = ", ".join(f't."{name}"' for name in question.fields)
    columns = fields if csv else f"{_on_one_line(source, question)} AS line"
    written = text(
        f"""SELECT {columns} FROM {_relation(source.sql)} AS t
            {_where(conditions)} ORDER BY {_ordered(_whole_order(source, question))}"""
    ).bindparams(**values)
    compiled = written.compile(connection.engine)
    run(connection, f"SET LOCAL statement_timeout = '{COPY_TIMEOUT_S}s'")
    driver = connection.connection.driver_connection
    if driver is None:
        raise RuntimeError("a connection in use has no driver's.")
    with driver.cursor() as cursor:
        select = cursor.mogrify(str(compiled), compiled.params).decode()
        form = "FORMAT csv, HEADER" if csv else RAW_COPY_FORMAT
        cursor.copy_expert(SQL(f"COPY ({select}) TO STDOUT WITH ({form})").string, to)


def _relation(sql: str) -> str:
    return f"({sql})" if sql.lstrip().upper().startswith(("SELECT", "WITH")) else sql


def _json(fields: Sequence[str]) -> str:
    """The expression of a row as JSON text, with *fields* in order."""
    listed = ", ".join(f't."{name}"' for name in fields)
    return f"(SELECT row_to_json(line)::text FROM (SELECT {listed}) AS line)"


def _on_one_line(source: PageSource, question: PageQuery) -> str:
    """The expression of a row as JSON text without line breaks.

    A column of the type json, or of one that holds it, may have some between values; within a text
    JSON has them escaped.
    """
    json = _json(question.fields)
    if ON_ONE_LINE.issuperset(source.columns[name] for name in question.fields):
        return json
    return f"replace(replace({json}, E'\\n', ' '), E'\\r', ' ')"


def _where(conditions: Sequence[str]) -> str:
    return "WHERE " + " AND ".join(conditions) if conditions else ""


def _whole_order(source: PageSource, question: PageQuery) -> tuple[OrderTerm, ...]:
    named = {term.column for term in question.order}
    return (*question.order, *(term for term in source.order if term.column not in named))


def _ordered(order: Sequence[OrderTerm]) -> str:
    return ", ".join(map(str, order))


def _conditions(source: PageSource, question: PageQuery) -> tuple[list[str], dict[str, Any]]:
    conditions: list[str] = []
    values: dict[str, Any] = {}
    if question.key is not None:
        # The index begins with the provider.
        conditions.append(
            "t._key = :key AND t._provider = ANY(ARRAY(SELECT p.id FROM catlog.provider p))"
        )
        values["key"] = question.key
    for n, (column, allowed) in enumerate(question.equal.items()):
        conditions.append(f't."{column}" = ANY(CAST(:equal_{n} AS {source.columns[column]}[]))')
        values[f"equal_{n}"] = list(allowed)
    for n, (column, operator, value) in enumerate(question.bounds):
        if operator == NULL_OPERATOR:
            conditions.append(f't."{column}" IS {"" if value else "NOT "}NULL')
            continue
        type_ = source.columns[column]
        conditions.append(f't."{column}" {OPERATORS[operator]} CAST(:bound_{n} AS {type_})')
        values[f"bound_{n}"] = value
    if question.search:
        held = " OR ".join(f't."{column}" ILIKE :search' for column in question.searched)
        conditions.append(f"({held})" if held else "false")
        escaped = question.search.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        values["search"] = f"%{escaped}%"
    return conditions, values


def _behind(
    source: PageSource, order: Sequence[OrderTerm], position: Sequence[str | None]
) -> tuple[str, dict[str, Any]]:
    """The condition that a row comes behind *position* in *order*."""
    values: dict[str, Any] = {f"after_{n}": value for n, value in enumerate(position)}
    casts = [f"CAST(:after_{n} AS {source.columns[term.column]})" for n, term in enumerate(order)]
    columns = [f't."{term.column}"' for term in order]
    # As an index has it. A NULL would be lost, so only where none can come.
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
