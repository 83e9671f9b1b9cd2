"""Database URLs: parsed, and refused with the remedy."""

import re
from collections.abc import Mapping, Sequence

import psycopg2
from psycopg2 import extensions
from sqlalchemy import URL, exc, make_url

from catlog_scrapy.exceptions import ConfigurationError

# Parameters whose values catlog sets for its sessions: other values would be dropped in silence.
OWN_PARAMETERS = frozenset({"client_encoding", "options"})
MAX_PORT = 65_535
SEVERAL_HOSTS = re.compile(r"[\w+]+://(?:[^/]*@)?[^/@]+,")
EXAMPLE = "use postgresql://user:password@host:5432/database"


def parse_database_url(url: str) -> URL:
    """Parse the URL of a PostgreSQL database. Raises ConfigurationError.

    libpq knows the parameters behind `?`; the driver would pass an unknown one on, and fail late.
    """
    if SEVERAL_HOSTS.match(url):
        raise ConfigurationError(
            "CATLOG_DATABASE_URL names several hosts in libpq's form; write them as parameters:"
            " postgresql://user:password@/database?host=one:5432&host=two:5432."
        )
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except exc.ArgumentError as error:
        raise ConfigurationError(
            f"CATLOG_DATABASE_URL is not a valid database URL; {EXAMPLE}."
        ) from error
    except ValueError as error:
        raise ConfigurationError(
            f"CATLOG_DATABASE_URL has a port that is not a number; {EXAMPLE}."
        ) from error
    if backend not in ("postgresql", "postgres"):
        raise ConfigurationError(
            f"CATLOG_DATABASE_URL names {backend}, but catlog needs PostgreSQL; {EXAMPLE}."
        )
    if parsed.port is not None and not 0 < parsed.port <= MAX_PORT:
        raise ConfigurationError(
            f"CATLOG_DATABASE_URL has the port {parsed.port}; use a number from 1 to {MAX_PORT}."
        )
    _require_known(parsed.query)
    return parsed


def _require_known(query: Mapping[str, str | Sequence[str]]) -> None:
    for name, value in query.items():
        if name in OWN_PARAMETERS:
            raise ConfigurationError(
                f"CATLOG_DATABASE_URL has the parameter {name!r}, which catlog sets itself; remove"
                " it, and give the role other settings by ALTER ROLE ... SET."
            )
        if not isinstance(value, str) and name not in ("host", "port"):
            raise ConfigurationError(
                f"CATLOG_DATABASE_URL has the parameter {name!r} twice; keep one of the two."
            )
        if not _is_known(name):
            raise ConfigurationError(
                f"CATLOG_DATABASE_URL has an unknown parameter {name!r}; remove it, or use a"
                " parameter of libpq, such as sslmode."
            )


def _is_known(name: str) -> bool:
    try:
        return name in extensions.parse_dsn(f"{name}=''")
    except psycopg2.Error:
        return False
