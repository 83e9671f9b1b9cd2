"""Queries of `scrapy sql`: statements that a user wrote, and that must not change anything.

All statements of a run share one read-only transaction, which is rolled back. Each statement runs
inside a function of catlog, from which it can neither leave the transaction nor take other rights:
not those of the session, which may be a superuser's.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self, TextIO
from uuid import uuid4

import psycopg2
from psycopg2 import extensions, sql

from catlog_scrapy.db.driver import first_line
from catlog_scrapy.exceptions import DatabaseUnavailable, NotPossible
from catlog_scrapy.sql_text import first_word
from catlog_scrapy.store.sql import load_sql

# First words of statements that are queries, and of others that return rows.
QUERY_WORDS = {"select", "with", "values", "table"}
ROW_WORDS = {"explain", "show"}
INTERVAL_TEXT = extensions.new_type((1186,), "INTERVAL_TEXT", lambda text, _: text)
RUN_STATEMENT = """
    SELECT array_agg(pair.key ORDER BY pair.n), array_agg(pair.value ORDER BY pair.n)
    FROM catlog.run_statement(%s, %s) WITH ORDINALITY AS found (columns, n),
        json_each_text(found.columns) WITH ORDINALITY AS pair (key, value, n)
    GROUP BY found.n ORDER BY found.n"""
TYPE_NAMES = """
    SELECT oid, CASE WHEN typtype = 'p' THEN 'text' ELSE pg_catalog.format_type(oid, -1) END
    FROM pg_catalog.pg_type WHERE oid = ANY(%s)"""
# Text before a query in catlog.describe_query.
DESCRIBED = "SELECT * FROM ("
# Whoever may run programs or touch files of the server is not bounded by a transaction.
UNBOUNDED_OWNER = """
    SELECT coalesce(bool_or(pg_has_role(proowner, role, 'USAGE')), true)
    FROM pg_proc, unnest(ARRAY['pg_execute_server_program', 'pg_read_server_files',
        'pg_write_server_files']) AS role
    WHERE pronamespace = 'catlog'::regnamespace AND prosecdef
      AND proname IN ('describe_query', 'run_query', 'run_statement')"""


@dataclass(frozen=True)
class QueryResult:
    """Columns and rows of a statement."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


class BoundedSession:
    """Session that runs statements without the right to write.

    Raises NotPossible for a statement that PostgreSQL refuses, and DatabaseUnavailable.
    """

    def __init__(self, connection: extensions.connection) -> None:
        self.connection = connection
        with self._readable_errors():
            self._bound_owner()
            connection.rollback()
            connection.set_session(readonly=True)
            # Python's durations have no months.
            extensions.register_type(INTERVAL_TEXT, connection)
            with connection.cursor() as cursor:
                cursor.execute("SET LOCAL statement_timeout = 0")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.connection.closed:
            self.connection.rollback()

    def set_as_of(self, time: str) -> None:
        """Let the names of views mean their as-of views at *time*. Raises NotPossible."""
        try:
            with self.connection.cursor() as cursor:
                cursor.execute(
                    "SELECT set_config('catlog.as_of', CAST(%s AS timestamptz)::text, true)", [time]
                )
                cursor.execute("SET LOCAL search_path = as_of, public")
        except psycopg2.DataError:
            raise NotPossible(
                f"{time!r} is not a valid time; use a value such as '2026-11-01 12:00Z'"
            ) from None

    def run(self, statement: str) -> QueryResult | None:
        """Run a statement and return its rows; None for a statement without rows."""
        with self._readable_errors(), self.connection.cursor() as cursor:
            if is_query(statement):
                names, source = self._bound(cursor, statement)
                cursor.execute(sql.SQL("SELECT * FROM {}").format(source))
                return QueryResult(names, cursor.fetchall())
            cursor.execute(RUN_STATEMENT, (statement, first_word(statement) in ROW_WORDS))
            found = cursor.fetchall()
        return QueryResult(found[0][0], [values for _, values in found]) if found else None

    def copy(self, query: str, file: TextIO) -> None:
        """Write the rows of a query to *file*, as CSV with a header, while they arrive."""
        with self._readable_errors(), self.connection.cursor() as cursor:
            names, source = self._bound(cursor, query)
            columns = sql.SQL(", ").join(
                sql.SQL("{} AS {}").format(sql.Identifier(_column(number)), sql.Identifier(name))
                for number, name in enumerate(names)
            )
            copied = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT WITH CSV HEADER")
            cursor.copy_expert(copied.format(columns, source), file)

    def _bound(self, cursor: Any, query: str) -> tuple[list[str], sql.Composed]:
        """Return the names of a query's columns, and the call of run_query in its place.

        A function that returns any rows needs the list of their columns. Columns of a type that no
        list may have, such as `void` or `record`, are cast to text.
        """
        name = f"query_{uuid4().hex}"
        cursor.execute("SELECT catlog.describe_query(%s, %s)", (query, name))
        # With 0, FETCH evaluates nothing: it would do so with the rights of the session.
        cursor.execute(sql.SQL("FETCH 0 FROM {}").format(sql.Identifier(name)))
        described = cursor.description
        cursor.execute(sql.SQL("CLOSE {}").format(sql.Identifier(name)))
        if not described:
            raise NotPossible("the query has no columns; select at least one")
        cursor.execute(TYPE_NAMES, ([found.type_code for found in described],))
        types = dict(cursor.fetchall())
        columns = [(_column(n), types[found.type_code]) for n, found in enumerate(described)]
        casts = ", ".join(f"CAST({name} AS {type_})" for name, type_ in columns)
        names = ", ".join(name for name, _ in columns)
        definition = ", ".join(f"{name} {type_}" for name, type_ in columns)
        source = sql.SQL("catlog.run_query({}) AS found ({})").format(
            sql.Literal(f"SELECT {casts} FROM ({query}\n) AS query ({names})"), sql.SQL(definition)
        )
        return [found.name for found in described], source

    def _bound_owner(self) -> None:
        """Give the functions to a role that can only read, if their owner could run programs.

        A migration has done so, unless the database was restored from a dump, or the owner got
        further rights. Raises NotPossible.
        """
        if not self._owner_is_unbounded():
            return
        self.connection.rollback()
        self.connection.set_session(readonly=False)
        with self.connection.cursor() as cursor:
            cursor.execute(load_sql(__name__, "bound_queries"))
        self.connection.commit()
        if self._owner_is_unbounded():
            raise NotPossible(
                "the owner of catlog.run_query() may run programs or write files of the server; run"
                " scrapy sql once as a superuser, or take these rights from the owner"
            )

    def _owner_is_unbounded(self) -> bool:
        with self.connection.cursor() as cursor:
            cursor.execute(UNBOUNDED_OWNER)
            return bool(cursor.fetchone()[0])

    @contextmanager
    def _readable_errors(self) -> Iterator[None]:
        try:
            yield
        except psycopg2.Error as error:
            if self.connection.closed:
                raise DatabaseUnavailable(f"the database failed: {first_line(error)}") from error
            raise NotPossible(f"PostgreSQL refused the query: {_refusal(error)}") from error


def is_query(statement: str) -> bool:
    """Return whether a statement is a query: a SELECT, VALUES, TABLE or WITH."""
    return first_word(statement) in QUERY_WORDS


def _column(number: int) -> str:
    """Return the name of a column of run_query; names that users gave may be equal."""
    return f"c{number}"


def _refusal(error: psycopg2.Error) -> str:
    """Return PostgreSQL's message with its hint and the line of the statement."""
    diagnosis = error.diag
    lines = [diagnosis.message_primary or first_line(error)]
    query = str(diagnosis.internal_query or "")
    position = int(diagnosis.internal_position or 0) - 1
    if query.startswith(DESCRIBED):
        query, position = query.removeprefix(DESCRIBED), position - len(DESCRIBED)
    if 0 <= position < len(query):
        before, after = query[:position], query[position:]
        text = before.rpartition("\n")[2] + after.partition("\n")[0]
        lines.append(f"LINE {before.count(chr(10)) + 1}: {text}")
    if diagnosis.message_hint:
        lines.append(f"HINT: {diagnosis.message_hint}")
    return "\n".join(lines)
