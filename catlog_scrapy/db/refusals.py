"""Refusals of the database as errors that say what to do."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg2

from catlog_scrapy.db.driver import first_line, is_unavailable
from catlog_scrapy.exceptions import CatlogError, DatabaseUnavailable, NotPossible

# libpq's messages of a failed connection, and the remedy. A server may write its part in another
# language, so the last line is for every message.
CONNECTION_REMEDIES = {
    r"password authentication failed|no password supplied": (
        "Correct user and password in CATLOG_DATABASE_URL, or the password of PGPASSFILE"
    ),
    r'database ".*" does not exist': (
        "Create it, CREATE DATABASE name ENCODING 'UTF8' TEMPLATE template0, or correct the name in"
        " CATLOG_DATABASE_URL"
    ),
    r'role ".*" does not exist': (
        "Create it, CREATE ROLE name LOGIN PASSWORD '...', or correct the user in"
        " CATLOG_DATABASE_URL"
    ),
    r"pg_hba": "Allow this machine, user and database in that server's pg_hba.conf",
    r"permission denied for database": "Grant the right: GRANT CONNECT ON DATABASE name TO role",
    r"could not translate host name": "Correct the host in CATLOG_DATABASE_URL",
    r"too many clients|remaining connection slots|too many connections|no more connections": (
        "Raise max_connections of that server, or use PgBouncer in transaction mode"
    ),
    r"starting up|shutting down|in recovery|not accepting connections": (
        "Wait until that server has started, and run the command again"
    ),
    r"read-write|read-only|hot standby": (
        "Name the right server in CATLOG_DATABASE_URL, or change target_session_attrs in it"
    ),
    r"SSL|certificate": (
        "Correct sslmode and the certificates, in CATLOG_DATABASE_URL or in libpq's variables"
    ),
    r"invalid connection option|invalid .* value|invalid integer value|invalid port": (
        "Correct the parameters in CATLOG_DATABASE_URL or in the variables of libpq (PG...)"
    ),
    r"": ("Start that server or correct CATLOG_DATABASE_URL; unset it for the embedded one"),
}

# SQLSTATE codes, or their classes, of refused statements.
RIGHTS = "42501"
READ_ONLY = "25006"
STATEMENT_REMEDIES = {
    RIGHTS: (
        "grant its role that right, or name the owner of the database in CATLOG_DATABASE_URL; see"
        " docs/howto/own-server.md"
    ),
    READ_ONLY: (
        "it is a replica, or its role has default_transaction_read_only: name the primary or"
        " another role in CATLOG_DATABASE_URL"
    ),
    "42P06": "another program has this schema; use a database for catlog alone",
    "42P07": "another program has this table; use a database for catlog alone",
    "53100": "free space on the disk of the database server, and run the command again",
    "53200": "give the database server more memory, and run the command again",
    "53300": "raise max_connections of the database server, or use PgBouncer in transaction mode",
    "53": "give the database server more resources, and run the command again",
    "57014": "run the command again; if it fails again, see docs/howto/big-loads.md",
    "58": "see the log of the database server",
    "XX": "see the log of the database server",
}


def connection_remedy(message: str) -> str:
    """Return what to do about a connection that failed with *message*."""
    return next(
        remedy for pattern, remedy in CONNECTION_REMEDIES.items() if re.search(pattern, message)
    )


@contextmanager
def refusals_reported() -> Iterator[None]:
    """Raise a CatlogError with the remedy in place of errors of the database.

    Errors that neither the network nor the database's owner causes are bugs, and propagate.
    """
    try:
        yield
    except CatlogError:
        raise
    except Exception as error:
        if refused := refusal_of(error):
            raise refused from error
        raise


def refusal_of(error: Exception) -> CatlogError | None:
    """Return the error to report for a refusal of the database, or None for any other error."""
    driver_error = getattr(error, "orig", None) or error
    state = (isinstance(driver_error, psycopg2.Error) and driver_error.pgcode) or ""
    for code in (state, state[:2]):
        if code and (remedy := STATEMENT_REMEDIES.get(code)):
            return NotPossible(f"the database refuses: {first_line(driver_error)}; {remedy}")
    # Imported only here: commands that only read do without SQLAlchemy.
    from catlog_scrapy.db.engine import UNAVAILABLE, reason

    if isinstance(error, UNAVAILABLE) or is_unavailable(driver_error):
        return DatabaseUnavailable(
            f"the database failed: {reason(error)}; nothing was left half done, so run the command"
            " again"
        )
    return None
