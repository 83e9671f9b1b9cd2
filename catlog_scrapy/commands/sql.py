"""`scrapy sql`."""

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import orjson
import psycopg2
from scrapy.exceptions import UsageError

from catlog_scrapy.commands.base import CatlogCommand
from catlog_scrapy.db.driver import DriverConnection, first_line
from catlog_scrapy.exceptions import DatabaseUnavailable, NotPossible
from catlog_scrapy.plurals import counted

# A statement ends with a semicolon outside of quotes, dollar quotes and comments.
STATEMENT = re.compile(
    r"""(?: '(?:[^']|'')*' | "(?:[^"]|"")*" | \$(\w*)\$.*?\$\1\$
         | --[^\n]* | /\*.*?\*/ | [^;] )+""",
    re.DOTALL | re.VERBOSE,
)
COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)


class Command(CatlogCommand):
    """Run SQL queries that read the database.

    Statements that would change data are refused.
    """

    def syntax(self) -> str:
        return "[options] QUERY-OR-FILE"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        super().add_options(parser)
        parser.add_argument("--csv", action="store_true", help="print CSV instead of a table")

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
                cursor.execute("SET LOCAL statement_timeout = 0")
                for statement in statements:
                    if COMMENT.sub("", statement).strip():
                        self._ask(cursor, statement, opts.csv)

    def _ask(self, cursor: Any, statement: str, csv: bool) -> None:
        try:
            if csv:
                cursor.copy_expert(f"COPY ({statement}\n) TO STDOUT WITH CSV HEADER", sys.stdout)
                return
            cursor.execute(statement)
        except psycopg2.Error as error:
            if cursor.connection.closed:
                raise DatabaseUnavailable(f"the database failed: {first_line(error)}") from error
            raise NotPossible(f"PostgreSQL refused the query: {str(error).strip()}") from error
        if cursor.description is None:
            return
        from rich.table import Table

        table = Table(*(column.name for column in cursor.description), box=None)
        for found in cursor:
            table.add_row(*(shown(value) for value in found))
        self.console.print(table, markup=False)
        self.console.print(f"({counted(cursor.rowcount, 'row')})")


def shown(value: Any) -> str:
    """Format a value for a cell: jsonb as JSON, null as nothing."""
    if isinstance(value, dict | list):
        return orjson.dumps(value, default=str).decode()
    return "" if value is None else str(value)
