"""Locks and rows that several verbs share."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import Connection, Engine, Table, text
from sqlalchemy.dialects.postgresql import insert

from catlog_scrapy.redaction import redact

if TYPE_CHECKING:  # the mapped classes take longer to import than most commands run
    from catlog_scrapy.models.base import Base


class RowMissing(LookupError):
    """A row that must exist is missing: a bug, or a database that was changed by hand.

    Raised by `one` and `scalar`.
    """


class Transaction:
    """Several verbs in one transaction: for them it stands for the engine. See `transaction`."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A part of the transaction that is kept whole, or not at all."""
        with self.connection.begin_nested():
            yield self.connection

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """The connection, to read what the transaction sees."""
        yield self.connection


# What a verb may be given that others may have to share a transaction with.
Database = Engine | Transaction


@contextmanager
def transaction(engine: Engine) -> Iterator[Transaction]:
    """One transaction for all verbs that are given what this yields."""
    with engine.begin() as connection:
        yield Transaction(connection)


def clean(text_: str) -> str:
    """*text_* as it may be stored: no secret, and U+0000 and lone surrogates written out."""
    return redact(text_).encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")


# To look for the parameters in a statement takes as long as to send it.
statement = lru_cache(1000)(text)


@cache
def load_sql(module: str, name: str) -> str:
    """Return the statement of the file `NAME.sql` next to *module*, which is a `__name__`."""
    folder = resources.files(module.rpartition(".")[0])
    return folder.joinpath(f"{name}.sql").read_text(encoding="utf-8")


def run(connection: Connection, sql: str, **values: Any) -> int:
    """Execute *sql*; the number of rows it touched."""
    return connection.execute(statement(sql), values).rowcount


def execute(connection: Connection, sql: str) -> None:
    """Execute *sql* past the driver's parameters: a percent sign or a colon in it is none."""
    connection.exec_driver_sql(sql, execution_options={"no_parameters": True})


def rows(connection: Connection, sql: str, **values: Any) -> list[Mapping[str, Any]]:
    """All rows of *sql*, by column name."""
    return [found._asdict() for found in connection.execute(statement(sql), values)]


def row(connection: Connection, sql: str, **values: Any) -> Mapping[str, Any] | None:
    """The first row of *sql*, if there is one."""
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


def upsert(
    connection: Connection,
    model: "type[Base]",
    values: Mapping[str, Any],
    *,
    conflict: Sequence[str],
    update: Mapping[str, Any] | None = None,
    where: Any = None,
) -> Mapping[str, Any]:
    """Insert a row of *model*, or update the row with the same values in the *conflict* columns.

    The update sets all other *values*, then those of *update*, which may be SQL expressions. A
    row for which *where* is false is left alone. Returns the row, {} if it was left alone.
    """
    table = cast(Table, model.__table__)
    statement = insert(table).values(**values)
    changed = {name: statement.excluded[name] for name in values if name not in conflict}
    found = connection.execute(
        statement.on_conflict_do_update(
            index_elements=conflict, set_=changed | dict(update or {}), where=where
        ).returning(table)
    ).first()
    return found._asdict() if found else {}
