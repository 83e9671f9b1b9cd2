"""`scrapy sql`."""

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import psycopg2
from scrapy.exceptions import UsageError

from catlog_scrapy.commands.base import CatlogCommand
from catlog_scrapy.db.driver import DriverConnection, first_line
from catlog_scrapy.exceptions import DatabaseUnavailable, NotPossible

# A statement ends with a semicolon outside of quotes, dollar quotes and comments.
STATEMENT = re.compile(
    r"""(?: '(?:[^']|'')*' | "(?:[^"]|"")*" | \$(\w*)\$.*?\$\1\$
         | --[^\n]* | /\*.*?\*/ | [^;] )+""",
    re.DOTALL | re.VERBOSE,
)
# What COPY takes; of the other statements, SET returns no rows, and SHOW and EXPLAIN do.
QUERY = re.compile(r"[\s(]*(?:select|values|table|with)\b", re.IGNORECASE)
COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)


class Command(CatlogCommand):
    """Run SQL queries that read the database.

    Statements that would change data are refused.
    """

    def syntax(self) -> str:
        return "[options] QUERY-OR-FILE"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        super().add_options(parser)
        output = parser.add_mutually_exclusive_group()
        output.add_argument("--csv", action="store_true", help="print CSV instead of a table")
        output.add_argument(
            "-x", dest="expanded", action="store_true", help="print one column a line"
        )
        parser.add_argument(
            "--as-of",
            metavar="TIME",
            help="read all views as they were at a time, such as '2026-11-01 12:00Z'",
        )

    def execute(self, args: list[str], opts: argparse.Namespace) -> None:
        if len(args) != 1:
            raise UsageError('write one query in quotes, or a file: scrapy sql "select 1"')
        text = sys.stdin.read() if args[0] == "-" else args[0]
        if args[0].endswith(".sql") and not Path(args[0]).is_file():
            raise NotPossible(f"the file {args[0]} does not exist")
        if args[0].endswith(".sql") and Path(args[0]).is_file():
            text = Path(args[0]).read_text(encoding="utf-8")
        statements = [found[0].strip() for found in STATEMENT.finditer(text)]
        with self.readable_database() as database, database.connect() as connection:
            driver = (
                connection.driver_connection
                if isinstance(connection, DriverConnection)
                else connection.connection.driver_connection
            )
            if driver is None:
                raise NotPossible("the connection was lost; run the command again")
            driver.set_session(readonly=True)
            with driver.cursor() as cursor:
                cursor.execute("SET statement_timeout = 0")
                if opts.as_of is not None:
                    self._set_as_of(cursor, opts.as_of)
                for statement in statements:
                    if COMMENT.sub("", statement).strip():
                        self._ask(cursor, statement, opts)

    def _set_as_of(self, cursor: Any, time: str) -> None:
        """Let the names of views mean their as-of views at *time*."""
        try:
            cursor.execute(
                "SELECT set_config('catlog.as_of', CAST(%s AS timestamptz)::text, false)", [time]
            )
            cursor.execute("SET search_path = as_of, public")
        except psycopg2.DataError:
            raise UsageError(
                f"{time!r} is not a valid time; use a value such as '2026-11-01 12:00Z'"
            ) from None

    def _ask(self, cursor: Any, statement: str, opts: argparse.Namespace) -> None:
        try:
            if opts.csv and QUERY.match(COMMENT.sub("", statement)):
                cursor.copy_expert(f"COPY ({statement}\n) TO STDOUT WITH CSV HEADER", sys.stdout)
                return
            cursor.execute(statement)
        except psycopg2.Error as error:
            if cursor.connection.closed:
                raise DatabaseUnavailable(f"the database failed: {first_line(error)}") from error
            raise NotPossible(f"PostgreSQL refused the query: {str(error).strip()}") from error
        if cursor.description is None:
            return
        from catlog_scrapy.commands import (
            sql_output,  # imports Rich, which takes a tenth of a second
        )

        if opts.csv:
            sql_output.print_csv(cursor)
        elif opts.expanded:
            sql_output.print_expanded(cursor)
        else:
            sql_output.print_table(self.console, cursor)
