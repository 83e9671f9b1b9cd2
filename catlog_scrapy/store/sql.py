"""Locks and rows that several verbs share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

from catlog_scrapy.db.driver import DriverConnection
from catlog_scrapy.redaction import redact

if TYPE_CHECKING:  # commands that only read do without SQLAlchemy; see db/driver.py
    from sqlalchemy import Connection, Engine, TextClause


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
Database: TypeAlias = "Engine | Transaction"
# What a verb may be given that only reads.
Readable: TypeAlias = "Engine | Transaction | DriverConnection"


@contextmanager
def transaction(engine: Engine) -> Iterator[Transaction]:
    """One transaction for all verbs that are given what this yields."""
    with engine.begin() as connection:
        yield Transaction(connection)


def clean(text_: str) -> str:
    """*text_* as it may be stored: no secret, and U+0000 and lone surrogates written out."""
    return redact(text_).encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")


@lru_cache(1000)
def statement(sql: str) -> TextClause:
    """Parse *sql* once: finding its parameters takes as long as sending it."""
    from sqlalchemy import text

    return text(sql)


def run(connection: Connection, sql: str, **values: Any) -> int:
    """Execute *sql*; the number of rows it touched."""
    return connection.execute(statement(sql), values).rowcount


def execute(connection: Connection, sql: str) -> None:
    """Execute *sql* past the driver's parameters: a percent sign or a colon in it is none."""
    connection.exec_driver_sql(sql, execution_options={"no_parameters": True})


def rows(
    connection: Connection | DriverConnection, sql: str, **values: Any
) -> list[Mapping[str, Any]]:
    """Return all rows of *sql*, by column name."""
    if isinstance(connection, DriverConnection):
        return list(connection.rows(sql, values))
    return [found._asdict() for found in connection.execute(statement(sql), values)]


def row(connection: Connection, sql: str, **values: Any) -> Mapping[str, Any] | None:
    """The first row of *sql*, if there is one."""
    found = connection.execute(statement(sql), values).first()
    return found._asdict() if found else None
