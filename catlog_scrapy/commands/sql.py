"""`scrapy sql`."""

import argparse
import sys
from pathlib import Path
from typing import Any

from scrapy.exceptions import UsageError

from catlog_scrapy.commands.base import CatlogCommand
from catlog_scrapy.db.driver import DriverConnection
from catlog_scrapy.exceptions import NotPossible
from catlog_scrapy.sql_text import first_word, split_statements
from catlog_scrapy.store.reading.queries import (
    QUERY_WORDS,
    ROW_WORDS,
    BoundedSession,
    is_query,
)

# Others are refused by PostgreSQL as well, except LOCK, which would keep workers waiting.
READING_WORDS = QUERY_WORDS | ROW_WORDS | {"set", "reset"}


class Command(CatlogCommand):
    """Run SQL queries that read the database.

    No statement can change data, leave its transaction or run a program.
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
        with (
            self.readable_database() as database,
            database.connect() as connection,
            BoundedSession(driver_connection(connection)) as session,
        ):
            if opts.as_of is not None:
                session.set_as_of(opts.as_of)
            for _, statement in split_statements(text):
                self._ask(session, statement, opts)

    def _ask(self, session: BoundedSession, statement: str, opts: argparse.Namespace) -> None:
        if statement.startswith("\\"):
            raise NotPossible(f"{statement.split(maxsplit=1)[0]} is a command of psql, not SQL")
        if first_word(statement) not in READING_WORDS:
            raise NotPossible(
                f'"{first_word(statement).upper()}" is not possible: scrapy sql is read-only; use'
                " SELECT, WITH, VALUES, TABLE, EXPLAIN, SHOW, SET or RESET"
            )
        if opts.csv and is_query(statement):
            session.copy(statement, sys.stdout)
            return
        found = session.run(statement)
        if found is None:
            return
        from catlog_scrapy.commands import (
            sql_output,  # imports Rich, which takes a tenth of a second
        )

        if opts.csv:
            sql_output.print_csv(found)
        elif opts.expanded:
            sql_output.print_expanded(found)
        else:
            sql_output.print_table(self.console, found)


def driver_connection(connection: Any) -> Any:
    """Return psycopg2's connection of SQLAlchemy's or our own. Raises NotPossible."""
    if isinstance(connection, DriverConnection):
        return connection.driver_connection
    driver = connection.connection.driver_connection
    if driver is None:
        raise NotPossible("the connection was lost; run the command again")
    return driver
