"""Connection parameters and session settings, for a server and for a transaction pooler.

Session settings are not sent as libpq's `options`, which PgBouncer refuses, but set after the
connection. A pooler in transaction mode gives each transaction another server connection, so
there each transaction sets them for itself.
"""

import os
from collections.abc import Collection, Mapping
from functools import cache, lru_cache
from typing import Any

from psycopg2 import ProgrammingError, extensions
from psycopg2.extensions import connection, cursor, parse_dsn
from psycopg2.sql import Composable

from catlog_scrapy.exceptions import ConfigurationError

# A dead peer must not hold a worker for the two hours that TCP allows by default.
# `tcp_user_timeout` is in milliseconds, the others in seconds.
CONNECT_ARGUMENTS = {
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    "application_name": "catlog",
}
# Neither the URL nor a variable such as PGOPTIONS may set these.
OWN_ARGUMENTS = {"client_encoding": "UTF8", "options": ""}
# Parameters that the URL may set, but not an environment variable such as PGHOSTADDR: it may be
# meant for another server.
URL_ONLY = {"hostaddr": "", "target_session_attrs": "any", "load_balance_hosts": "disable"}
# On a Unix socket there is nothing to encrypt, and PGSSLMODE and others may forbid to connect.
SOCKET_ONLY = {
    "sslmode": "disable",
    "sslnegotiation": "postgres",
    "sslcertmode": "disable",
    "sslrootcert": "",
    "ssl_min_protocol_version": "",
    "ssl_max_protocol_version": "",
    "gssencmode": "disable",
    "channel_binding": "disable",
    "require_auth": "",
    "requirepeer": "",
}
# libpq reads these variables whatever the parameters say.
DROPPED_VARIABLES = ("PGSERVICE", "PGDATESTYLE", "PGTZ", "PGGEQO")

# Neither PGOPTIONS nor ALTER ROLE or ALTER DATABASE may change what statements mean.
SESSION_SETTINGS = {
    "timezone": "UTC",
    "search_path": "public",
    "datestyle": "ISO, MDY",
    "intervalstyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "standard_conforming_strings": "on",
    "transform_null_equals": "off",
    "array_nulls": "on",
    "default_transaction_isolation": "read committed",
    "jit": "off",
    "lock_timeout": "30s",
    "idle_in_transaction_session_timeout": "60s",
}


def connect_arguments(host: str, given: Collection[str]) -> dict[str, Any]:
    """Return libpq's parameters for *host*, beside those that the URL has *given*.

    Variables that libpq would read regardless of them are removed from the environment.
    """
    for name in DROPPED_VARIABLES:
        os.environ.pop(name, None)
    defaults = CONNECT_ARGUMENTS | URL_ONLY | (SOCKET_ONLY if host.startswith("/") else {})
    names = (_known_parameters() & defaults.keys()) - set(given)
    return OWN_ARGUMENTS | {name: defaults[name] for name in sorted(names)}


@cache
def _known_parameters() -> frozenset[str]:
    """Return the parameters that this version of libpq knows."""
    known = set()
    for name in CONNECT_ARGUMENTS | URL_ONLY | SOCKET_ONLY:
        try:
            parse_dsn(f"{name}=''")
        except ProgrammingError:
            continue
        known.add(name)
    return frozenset(known)


def begin_session(made: connection, statement_timeout: float) -> None:
    """Set the session settings of a new connection, or prepare its cursors to set them.

    A statement may take *statement_timeout* seconds. Raises ConfigurationError for a database that
    is not UTF8.
    """
    autocommit = made.autocommit
    made.autocommit = True
    with made.cursor() as opening:
        opening.execute(session_sql(made, statement_timeout))
        end_opening(made, opening, statement_timeout)
    made.autocommit = autocommit


def session_sql(made: connection, statement_timeout: float) -> str:
    """Return the statement that sets the session settings, unless a pooler is in between.

    A pooler hides the server's process id behind an invented id. Its server connections are for
    other clients too, so there the statement changes nothing. Its first column says which. Raises
    ConfigurationError for a database that is not UTF8.
    """
    _require_utf8(made)
    is_pooled = f"pg_backend_pid() <> {made.get_backend_pid()}"
    settings = _settings(statement_timeout).items()
    calls = "".join(f", set_config('{name}', '{value}', {is_pooled})" for name, value in settings)
    return f"SELECT {is_pooled}{calls}"


def end_opening(made: connection, opening: cursor, statement_timeout: float) -> None:
    """Read the result of `session_sql`, and let cursors set the settings behind a pooler."""
    ((is_pooled_, *_),) = opening.fetchall()
    if is_pooled_:
        settings = _settings(statement_timeout).items()
        calls = ", ".join(f"set_config('{name}', '{value}', true)" for name, value in settings)
        made.cursor_factory = pooled_cursor(made.cursor_factory or cursor, f"SELECT {calls}; ")


def _settings(statement_timeout: float) -> Mapping[str, str]:
    return SESSION_SETTINGS | {"statement_timeout": f"{round(statement_timeout * 1000)}ms"}


@lru_cache(100)
def pooled_cursor(base: type[cursor], prefix: str) -> type[cursor]:
    """Return a subclass of *base* whose first statement in a transaction begins with *prefix*.

    Both take one round trip. Without a transaction, PostgreSQL runs them in one of their own.
    """

    class PooledCursor(base):  # type: ignore[misc]
        def execute(self, query: Any, vars: Any = None) -> None:
            if _is_idle(self.connection):
                if isinstance(query, Composable):
                    query = query.as_string(self)
                query = prefix.encode() + query if isinstance(query, bytes) else prefix + query
            super().execute(query, vars)

        def copy_expert(self, sql: Any, file: Any, size: int = 8192) -> None:
            if _is_idle(self.connection):
                super().execute(prefix)
            super().copy_expert(sql, file, size)

    return PooledCursor


def _is_idle(of: connection) -> bool:
    return bool(of.info.transaction_status == extensions.TRANSACTION_STATUS_IDLE)


def is_pooled(of: Any) -> bool:
    """Return whether a pooler is between the driver's connection and the server."""
    return getattr(of.cursor_factory, "__name__", "") == "PooledCursor"


def without_settings(of: Any) -> None:
    """Send the statements of a pooled connection alone, as some cannot run in a transaction."""
    of.cursor_factory = of.cursor_factory.__base__


def _require_utf8(made: connection) -> None:
    encoding = made.get_parameter_status("server_encoding")
    if encoding != "UTF8":
        name = made.info.dbname
        raise ConfigurationError(
            f"the database {name!r} has the encoding {encoding}, but catlog needs UTF8; create"
            f" another: CREATE DATABASE name ENCODING 'UTF8' TEMPLATE template0"
        )
