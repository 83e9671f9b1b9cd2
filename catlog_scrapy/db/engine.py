"""SQLAlchemy engines for catlog's database."""

import math

import orjson
from sqlalchemy import (
    Engine,
    create_engine,
    exc,
)

from catlog_scrapy.db.database_url import parse_database_url
from catlog_scrapy.db.driver import (
    CONNECT_ARGUMENTS,
    CONNECT_TIMEOUT_S,
    STATEMENT_TIMEOUT_S,
    connect_options,
)
from catlog_scrapy.db.watchdog import (
    WatchedConnection,
    WatchedCursor,
    check_idle_connections,
    watch_connections,
)

SCHEMA = "catlog"


# Errors of an unreachable or overloaded database, not of a statement.
UNAVAILABLE = (exc.OperationalError, exc.InterfaceError, exc.TimeoutError)


def reason(error: Exception) -> str:
    """Return the first line of an error's message, without SQLAlchemy's wrapping."""
    text_ = str(getattr(error, "orig", None) or error).strip()
    return text_.splitlines()[0] if text_ else type(error).__name__


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
    watched = (
        {"connection_factory": WatchedConnection, "cursor_factory": WatchedCursor}
        if connect_timeout
        else {}
    )
    engine = create_engine(
        parsed.set(drivername="postgresql+psycopg2"),
        connect_args={
            **CONNECT_ARGUMENTS,
            **watched,
            "connect_timeout": math.ceil(connect_timeout or CONNECT_TIMEOUT_S),
            "options": connect_options(statement_timeout),
        },
        pool_timeout=connect_timeout or 30,
        pool_size=10,
        max_overflow=20,
        json_serializer=lambda value: orjson.dumps(value).decode(),
        json_deserializer=orjson.loads,
    )
    if connect_timeout:
        watch_connections(engine, statement_timeout + connect_timeout, connect_timeout)
    else:
        check_idle_connections(engine)
    return engine
