"""Opening a database."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, exc, make_url, text

from catlog_scrapy.db.driver import LEAST_SERVER_VERSION
from catlog_scrapy.db.engine import make_engine, reason
from catlog_scrapy.db.refusals import connection_remedy
from catlog_scrapy.exceptions import ConfigurationError, DatabaseUnavailable


@contextmanager
def open_database(url: str, *, wait: bool = False) -> Iterator[Engine]:
    """Open the database of *url*; with *wait*, retry until it can be reached.

    Raises ConfigurationError or DatabaseUnavailable.
    """
    engine = make_engine(url)
    try:
        try:
            version = _version(engine, wait=wait)
        except exc.DBAPIError as error:
            place = make_url(url).render_as_string(hide_password=True)
            message = reason(error)
            raise DatabaseUnavailable(
                f"No connection to {place}: {message}. {connection_remedy(message)}."
            ) from error
        if version < LEAST_SERVER_VERSION:
            raise ConfigurationError("catlog needs PostgreSQL 14 or later; upgrade that server.")
        yield engine
    finally:
        engine.dispose()


def _version(engine: Engine, *, wait: bool) -> int:
    while True:
        try:
            with engine.connect() as connection:
                return int(connection.scalar(text("SHOW server_version_num")) or 0)
        except exc.OperationalError:
            if not wait:
                raise
            time.sleep(1)
