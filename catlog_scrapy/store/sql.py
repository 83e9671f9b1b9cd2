"""Statements, rows and transactions that all store functions share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from catlog_scrapy.db.driver import PARAMETER, DriverConnection
from catlog_scrapy.redaction import redact

if TYPE_CHECKING:  # commands that only read do without SQLAlchemy; see db/driver.py
    from sqlalchemy import Connection, Engine, Table, TextClause

    from catlog_scrapy.models.base import Base


class RowMissing(LookupError):
    """A row that must exist is missing: a bug, or a database that was changed by hand.

    Raised by `one` and `scalar`.
    """


@dataclass(frozen=True)
class Condition:
    """Boolean SQL expression with the values of its parameters, which may be secret."""

    sql: str
    values: Mapping[str, Any] = field(repr=False)


class Transaction:
    """Transaction that takes the place of an engine, so that store functions can share it.

    Made by `transaction`.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """Run the block in a savepoint: either all of its changes are kept, or none."""
        with self.connection.begin_nested():
            yield self.connection

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """Give the connection, to read what the transaction sees."""
        yield self.connection


# The argument of a store function whose transaction others may share.
Database: TypeAlias = "Engine | Transaction"
# The argument of a store function that only reads.
Readable: TypeAlias = "Engine | Transaction | DriverConnection"


@contextmanager
def transaction(engine: Engine) -> Iterator[Transaction]:
    """Open one transaction for all store functions that are called with the result."""
    with engine.begin() as connection:
        yield Transaction(connection)


def clean(text_: str) -> str:
    """Return *text_* without secrets, and with escapes for what PostgreSQL cannot store.

    PostgreSQL can store neither U+0000 nor lone surrogates.
    """
    return redact(text_).encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")


@lru_cache(1000)
def statement(sql: str) -> TextClause:
    """Parse *sql* once: finding its parameters takes as long as sending it."""
    from sqlalchemy import text

    return text(sql)


@cache
def load_sql(module: str, name: str) -> str:
    """Return the statement in the file `NAME.sql` next to *module*, which is a `__name__`."""
    from importlib import resources

    folder = resources.files(module.rpartition(".")[0])
    return folder.joinpath(f"{name}.sql").read_text(encoding="utf-8")


def run(connection: Connection, sql: str, **values: Any) -> int:
    """Execute *sql* and return the number of rows that it touched."""
    return connection.execute(statement(sql), values).rowcount


def execute(connection: Connection, sql: str) -> None:
    """Execute *sql* as it is: neither percent signs nor colons start a parameter."""
    connection.exec_driver_sql(sql, execution_options={"no_parameters": True})


def rows(
    connection: Connection | DriverConnection, sql: str, **values: Any
) -> list[Mapping[str, Any]]:
    """Return all rows of *sql*, by column name."""
    if isinstance(connection, DriverConnection):
        return list(connection.rows(sql, values))
    return [found._asdict() for found in connection.execute(statement(sql), values)]


def row(connection: Connection, sql: str, **values: Any) -> Mapping[str, Any] | None:
    """Return the first row of *sql*, or None without rows."""
    found = connection.execute(statement(sql), values).first()
    return found._asdict() if found else None


def one(connection: Connection, sql: str, **values: Any) -> Mapping[str, Any]:
    """Return the first row of *sql*, which must exist. Raises RowMissing."""
    found = row(connection, sql, **values)
    if found is None:
        raise RowMissing(f"no row for {values}: {' '.join(sql.split())}")
    return found


def scalar(connection: Connection, sql: str, **values: Any) -> Any:
    """Return the first column of the first row of *sql*, which must exist. Raises RowMissing."""
    return next(iter(one(connection, sql, **values).values()))


@lru_cache(100)
def _driver_statement(sql: str) -> str:
    """Return *sql* with its parameters in psycopg2's style."""
    return PARAMETER.sub(r"%(\1)s", sql.replace("%", "%%"))


def call(database: Database, sql: str, **values: Any) -> Mapping[str, Any]:
    """Run *sql*, which is a transaction by itself, and return its row, which must exist.

    An engine sends neither BEGIN nor COMMIT: the statement takes one round trip.
    """
    if isinstance(database, Transaction):
        with database.begin() as connection:
            return one(connection, sql, **values)
    with database.connect() as connection:
        # SQLAlchemy's isolation level AUTOCOMMIT takes round trips to set and reset.
        driver: Any = connection.connection.driver_connection
        driver.autocommit = True
        try:
            found = connection.exec_driver_sql(_driver_statement(sql), values).one()
            return found._asdict()
        finally:
            if not driver.closed:
                driver.autocommit = False


def upsert(
    connection: Connection,
    model: type[Base],
    values: Mapping[str, Any],
    *,
    conflict: Sequence[str],
    where: Any = None,
) -> Mapping[str, Any]:
    """Insert a row of *model*, or update the row with the same values in the *conflict* columns.

    The update sets all other *values*. A row for which *where* is false stays as it is. Returns the
    written row, otherwise {}.
    """
    from sqlalchemy.dialects.postgresql import insert

    table = cast("Table", model.__table__)
    written = insert(table).values(**values)
    changed = {name: written.excluded[name] for name in values if name not in conflict}
    found = connection.execute(
        written.on_conflict_do_update(index_elements=conflict, set_=changed, where=where).returning(
            table
        )
    ).first()
    return found._asdict() if found else {}
