"""SQLAlchemy engines for catlog's database."""

import math
import re
from pathlib import Path

import orjson
from psycopg2.errors import ReadOnlySqlTransaction
from psycopg2.extensions import connection
from sqlalchemy import (
    URL,
    Engine,
    ExceptionContext,
    create_engine,
    event,
    exc,
)

from catlog_scrapy.db.database_url import parse_database_url
from catlog_scrapy.db.disk import is_full
from catlog_scrapy.db.driver import (
    CONNECT_TIMEOUT_S,
    STATEMENT_TIMEOUT_S,
    first_line,
    is_unavailable,
)
from catlog_scrapy.db.session import begin_session, connect_arguments
from catlog_scrapy.db.typecasters import register_typecasters
from catlog_scrapy.db.watchdog import (
    WatchedConnection,
    WatchedCursor,
    check_idle_connections,
    watch_connections,
)

SCHEMA = "catlog"


# Errors of an unreachable or overloaded database, not of a statement.
UNAVAILABLE = (exc.OperationalError, exc.InterfaceError, exc.TimeoutError)

# Of a server that has ended, the client only says that its socket is missing or refuses.
FAILED_SOCKET = re.compile(r'on socket "([^"]+)" failed')


def reason(error: Exception) -> str:
    """Return the first line of an error's message, without SQLAlchemy's wrapping.

    A failed socket on a full disk gets the true reason.
    """
    first = first_line(getattr(error, "orig", None) or error)
    if socket := FAILED_SOCKET.search(first):
        folder = next((path for path in Path(socket[1]).parents if path.is_dir()), Path("/"))
        if is_full(folder):
            first += f"; the disk of {folder} is full"
    return first


def make_engine(
    url: str,
    *,
    statement_timeout: float = STATEMENT_TIMEOUT_S,
    connect_timeout: float | None = None,
) -> Engine:
    """Make an engine for *url*, which must name PostgreSQL; it does not connect yet.

    Statements take at most *statement_timeout* seconds. *connect_timeout* bounds, in seconds, the
    wait for a connection, from the server or the pool, and for an answer on a silent connection.
    Raises ConfigurationError for an unusable URL.
    """
    parsed = parse_database_url(url)
    default = None if "connect_timeout" in parsed.query else CONNECT_TIMEOUT_S
    timeout = connect_timeout or default
    watched = (
        {"connection_factory": WatchedConnection, "cursor_factory": WatchedCursor}
        if connect_timeout
        else {}
    )
    engine = create_engine(
        parsed.set(drivername="postgresql+psycopg2"),
        connect_args={
            **({"connect_timeout": math.ceil(timeout)} if timeout else {}),
            **connect_arguments(host_of(parsed), parsed.query),
            **watched,
        },
        pool_timeout=connect_timeout or 30,
        pool_size=10,
        max_overflow=20,
        json_serializer=lambda value: orjson.dumps(value).decode(),
        json_deserializer=orjson.loads,
    )

    def set_up(made: connection, _: object) -> None:
        begin_session(made, statement_timeout)
        register_typecasters(made)

    # First of all: SQLAlchemy asks a new connection for its schema, which depends on search_path.
    event.listen(engine, "connect", set_up, insert=True)
    event.listen(engine, "handle_error", _operational_error)
    if connect_timeout:
        watch_connections(engine, statement_timeout + connect_timeout, connect_timeout)
    else:
        check_idle_connections(engine)
    return engine


def host_of(url: URL) -> str:
    """Return the host of *url*, or its first host; empty for libpq's default."""
    hosts = url.query.get("host", ())
    return url.host or (hosts if isinstance(hosts, str) else next(iter(hosts), ""))


def _operational_error(context: ExceptionContext) -> exc.OperationalError | None:
    """Return an OperationalError in place of psycopg2's other errors of an unavailable database.

    After a failover, a connection may lead to a server that has become a replica.
    """
    error = context.original_exception
    is_known = isinstance(context.sqlalchemy_exception, UNAVAILABLE)
    if is_known or not (is_unavailable(error) or isinstance(error, ReadOnlySqlTransaction)):
        return None
    # The pool replaces all its connections: they lead to the same server.
    context.is_disconnect = True
    return exc.OperationalError(
        context.statement, context.parameters, error, connection_invalidated=True
    )
