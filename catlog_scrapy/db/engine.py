"""The engine, the declarative base and the column types that all tables share."""

import math

import orjson
from sqlalchemy import (
    Engine,
    create_engine,
    exc,
    make_url,
)

from catlog_scrapy.db.watchdog import WatchedConnection, WatchedCursor, watch_connections
from catlog_scrapy.exceptions import ConfigurationError

SCHEMA = "catlog"


# What says that the database is away or overrun, not that a statement is wrong.
UNAVAILABLE = (exc.OperationalError, exc.InterfaceError, exc.TimeoutError)


def reason(error: Exception) -> str:
    """What went wrong, in a line, without SQLAlchemy's wrapping."""
    text_ = str(getattr(error, "orig", None) or error).strip()
    return text_.splitlines()[0] if text_ else type(error).__name__


# A dead peer must not hold a worker for the two hours that TCP allows by default, and no statement
# of ours but a publish may run long. `tcp_user_timeout` is in milliseconds, the others in seconds.
CONNECT_ARGUMENTS = {
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    "application_name": "catlog",
}
SERVER_OPTIONS = (
    "-c timezone=UTC -c search_path=public -c jit=off"
    " -c lock_timeout=30000 -c idle_in_transaction_session_timeout=60000"
)


def make_engine(
    url: str, *, statement_timeout: float = 60.0, connect_timeout: float | None = None
) -> Engine:
    """An engine for *url*, which must name PostgreSQL.

    Its statements take *statement_timeout* seconds at most; *connect_timeout* is how many it waits for a
    connection, of the server's or of its pool, and for one that has fallen silent. It does not
    connect. Raises ConfigurationError for an unusable URL.
    """
    try:
        parsed = make_url(url)
    except exc.ArgumentError as error:
        raise ConfigurationError(
            "CATLOG_DATABASE_URL is no database URL; write it as"
            " postgresql://user:password@host:5432/database."
        ) from error
    if parsed.get_backend_name() not in ("postgresql", "postgres"):
        raise ConfigurationError(
            f"CATLOG_DATABASE_URL names {parsed.get_backend_name()}, but catlog needs PostgreSQL:"
            " write postgresql://user:password@host:5432/database."
        )
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
            "connect_timeout": math.ceil(connect_timeout or 10),
            "options": f"{SERVER_OPTIONS} -c statement_timeout={round(statement_timeout * 1000)}",
        },
        pool_timeout=connect_timeout or 30,
        pool_size=10,
        max_overflow=20,
        # At each use; who is impatient uses them so often that this costs a tenth of the time.
        pool_pre_ping=not connect_timeout,
        json_serializer=lambda value: orjson.dumps(value).decode(),
        json_deserializer=orjson.loads,
    )
    if connect_timeout:
        watch_connections(engine, statement_timeout + connect_timeout, connect_timeout)
    return engine
