"""The engine, the declarative base and the column types that all tables share."""

import datetime as dt
import math
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import orjson
from sqlalchemy import (
    BigInteger,
    DateTime,
    Double,
    Engine,
    MetaData,
    Text,
    Uuid,
    create_engine,
    exc,
    func,
    make_url,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, mapped_column

from catlog_scrapy.db.embedded import EmbeddedServer
from catlog_scrapy.db.watchdog import Connection, Cursor, listen_to_silence
from catlog_scrapy.exceptions import ConfigurationError, DatabaseUnavailable

SCHEMA = "catlog"

UuidKey = Annotated[
    uuid.UUID, mapped_column(Uuid, primary_key=True, server_default=func.gen_random_uuid())
]
Instant = Annotated[dt.datetime, mapped_column(DateTime(timezone=True))]
CreatedAt = Annotated[
    dt.datetime, mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())
]
Json = Annotated[Any, mapped_column(JSONB)]
Seconds = Annotated[float, mapped_column(Double)]
Big = Annotated[int, mapped_column(BigInteger)]
# Bytewise: equal means equal, and comparing is cheap whatever the database's collation is.
Key = Annotated[str, mapped_column(Text(collation="C"))]


# What says that the database is away or overrun, not that a statement is wrong.
UNAVAILABLE = (exc.OperationalError, exc.InterfaceError, exc.TimeoutError)


def reason(error: Exception) -> str:
    """What went wrong, in a line, without SQLAlchemy's wrapping."""
    text_ = str(getattr(error, "orig", None) or error).strip()
    return text_.splitlines()[0] if text_ else type(error).__name__


class Base(DeclarativeBase):
    """All tables live in the schema `catlog`; `public` is left to the readers' views."""

    metadata = MetaData(
        schema=SCHEMA,
        naming_convention={
            "ix": "%(table_name)s_%(column_0_N_name)s_idx",
            "uq": "%(table_name)s_%(column_0_N_name)s_key",
            "ck": "%(table_name)s_%(constraint_name)s_check",
            "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
            "pk": "%(table_name)s_pkey",
        },
    )
    type_annotation_map = {str: Text, dt.datetime: DateTime(timezone=True)}


# A dead peer must not hold a worker for the two hours that TCP allows by default, and no statement
# of ours but a publish may run long. `tcp_user_timeout` is in milliseconds, the others in seconds.
CONNECT_ARGUMENTS = {
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    "application_name": "catlog",
}
OPTIONS = (
    "-c timezone=UTC -c search_path=public -c jit=off"
    " -c lock_timeout=30000 -c idle_in_transaction_session_timeout=60000"
)


def make_engine(
    url: str, *, statement_timeout: float = 60.0, patience: float | None = None
) -> Engine:
    """An engine for *url*, which must name PostgreSQL.

    Its statements take *statement_timeout* seconds at most; *patience* is how many it waits for a
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
    watched = {"connection_factory": Connection, "cursor_factory": Cursor} if patience else {}
    engine = create_engine(
        parsed.set(drivername="postgresql+psycopg2"),
        connect_args={
            **CONNECT_ARGUMENTS,
            **watched,
            "connect_timeout": math.ceil(patience or 10),
            "options": f"{OPTIONS} -c statement_timeout={round(statement_timeout * 1000)}",
        },
        pool_timeout=patience or 30,
        pool_size=10,
        max_overflow=20,
        # At each use; who is impatient uses them so often that this costs a tenth of the time.
        pool_pre_ping=not patience,
        json_serializer=lambda value: orjson.dumps(value).decode(),
        json_deserializer=orjson.loads,
    )
    if patience:
        listen_to_silence(engine, statement_timeout + patience, patience)
    return engine


@contextmanager
def open_database(url: str | None, home: Path, *, patient: bool = False) -> Iterator[Engine]:
    """The database of *url*, or the embedded one under *home*, held for as long as the block runs.

    If *patient*, one that is away is waited for. Raises ConfigurationError, EmbeddedServerError or
    DatabaseUnavailable.
    """
    with ExitStack() as stack:
        engine = make_engine(url or stack.enter_context(EmbeddedServer(home)))
        stack.callback(engine.dispose)
        try:
            version = _version(engine, patient=patient)
        except exc.OperationalError as error:
            place = engine.url.render_as_string(hide_password=True)
            raise DatabaseUnavailable(
                f"No connection to {place}: {reason(error)}. Start that server or correct"
                " CATLOG_DATABASE_URL; unset it for the embedded one."
            ) from error
        if version < 140000:
            raise ConfigurationError("catlog needs PostgreSQL 14 or later; upgrade that server.")
        yield engine


def _version(engine: Engine, *, patient: bool) -> int:
    while True:
        try:
            with engine.connect() as connection:
                return int(connection.scalar(text("SHOW server_version_num")) or 0)
        except exc.OperationalError:
            if not patient:
                raise
            time.sleep(1)
