"""Connections by psycopg2 alone, for commands that only read.

Importing SQLAlchemy takes more CPU than such a command itself, so this module does without it.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Self

import orjson
import psycopg2
from psycopg2 import extensions, extras

from catlog_scrapy.db.migrations import head, revision
from catlog_scrapy.db.session import begin_session, connect_arguments
from catlog_scrapy.db.typecasters import register_typecasters
from catlog_scrapy.exceptions import ConfigurationError, DatabaseUnavailable

# No statement of ours but a publish may run long.
STATEMENT_TIMEOUT_S = 60.0
LEAST_SERVER_VERSION = 140_000  # as libpq counts versions
CONNECT_TIMEOUT_S = 10

# URLs that libpq and SQLAlchemy read alike. They differ in lists of hosts, unescaped characters,
# blank values, repeated keys and the key `ssl`; `options` and `client_encoding` are refused.
PLAIN_URL = re.compile(
    r"postgres(?:ql)?(?:\+psycopg2)?(://(?:[\w.%-]+(?::[\w.%-]*)?@)?[\w.-]*(?::\d+)?/[\w.%-]+"
    r"(?:\?(?!(?:.*&)?(?:ssl|options|client_encoding|(?P<key>\w+)=.*&(?P=key))=)\w+=[\w.%/-]+(?:&\w+=[\w.%/-]+)*)?)",
    re.ASCII,
)
# As SQLAlchemy's text() finds parameters: not the colons of a cast, nor those of a time.
PARAMETER = re.compile(r"(?<![:\w\\]):(\w+)(?!:)")


@lru_cache(1000)
def driver_sql(sql: str) -> str:
    """Return *sql* with psycopg2's notation of parameters for `:name`."""
    return PARAMETER.sub(r"%(\1)s", sql.replace("%", "%%"))


class DriverConnection:
    """Read-only connection, which `store.sql.rows` takes in place of SQLAlchemy's."""

    def __init__(self, connection: extensions.connection) -> None:
        self.driver_connection = connection
        connection.set_session(readonly=True)
        _register_types(connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.driver_connection.close()

    @contextmanager
    def connect(self) -> Iterator[Self]:
        """Return this connection, as an engine returns one of its pool."""
        yield self

    def rows(self, sql: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return all rows of *sql*, by column name."""
        with self._executed(driver_sql(sql), values) as cursor:
            names = [column.name for column in cursor.description or ()]
            return [dict(zip(names, found, strict=True)) for found in cursor]

    def scalar(self, sql: str) -> Any:
        """Return the first value of *sql*, if there is one."""
        with self._executed(sql, None) as cursor:
            found = cursor.fetchone()
        return found[0] if found else None

    @contextmanager
    def _executed(self, sql: str, values: Mapping[str, Any] | None) -> Iterator[extensions.cursor]:
        try:
            with self.driver_connection.cursor() as cursor:
                cursor.execute(sql, values)
                yield cursor
        except psycopg2.Error as error:
            if not is_unavailable(error):
                raise
            raise DatabaseUnavailable(f"the database failed: {first_line(error)}") from error


def connect(url: str) -> DriverConnection | None:
    """Connect to a database that is at this catlog's revision.

    Returns None where that takes more, or fails: SQLAlchemy's way does it, or explains why not.
    """
    found = PLAIN_URL.fullmatch(url)
    if found is None:
        return None
    try:
        dsn = extensions.parse_dsn(f"postgresql{found[1]}")
        connection = psycopg2.connect(
            **{"connect_timeout": CONNECT_TIMEOUT_S}
            | dsn
            | connect_arguments(dsn.get("host", ""), dsn)
        )
        begin_session(connection, STATEMENT_TIMEOUT_S)
        made = DriverConnection(connection)
    except (psycopg2.Error, ConfigurationError):
        return None
    if connection.server_version < LEAST_SERVER_VERSION or revision(made.scalar) != head():
        connection.close()
        return None
    connection.rollback()
    return made


def _register_types(connection: extensions.connection) -> None:
    """Decode values as SQLAlchemy's dialect and the engine of db/engine.py do."""
    register_typecasters(connection)
    extras.register_uuid(None, connection)
    extras.register_default_json(connection, loads=orjson.loads)
    extras.register_default_jsonb(connection, loads=orjson.loads)
    if oids := extras.HstoreAdapter.get_oids(connection):
        extras.register_hstore(connection, oid=oids[0], array_oid=oids[1])


def is_unavailable(error: BaseException) -> bool:
    """Return whether a driver's error tells of an unavailable database, not of a statement.

    psycopg2 raises plain DatabaseError for some of the ways in which a connection ends.
    """
    if isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError):
        return True
    return isinstance(error, psycopg2.DatabaseError) and error.pgcode is None


def first_line(error: Exception) -> str:
    """Return the first line of an error's text."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
