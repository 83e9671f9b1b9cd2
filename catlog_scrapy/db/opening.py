"""Opening a project's database: the one of a URL, or the embedded one."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sqlalchemy import (
    Engine,
    exc,
    text,
)

from catlog_scrapy.db.embedded import EmbeddedServer
from catlog_scrapy.db.engine import make_engine, reason
from catlog_scrapy.exceptions import ConfigurationError, DatabaseUnavailable


@contextmanager
def open_database(url: str | None, home: Path, *, wait: bool = False) -> Iterator[Engine]:
    """The database of *url*, or the embedded one under *home*, held for as long as the block runs.

    If *wait*, one that is away is waited for. Raises ConfigurationError, EmbeddedServerError or
    DatabaseUnavailable.
    """
    with ExitStack() as stack:
        engine = make_engine(url or stack.enter_context(EmbeddedServer(home)))
        stack.callback(engine.dispose)
        try:
            version = _version(engine, wait=wait)
        except exc.OperationalError as error:
            place = engine.url.render_as_string(hide_password=True)
            raise DatabaseUnavailable(
                f"No connection to {place}: {reason(error)}. Start that server or correct"
                " CATLOG_DATABASE_URL; unset it for the embedded one."
            ) from error
        if version < 140000:
            raise ConfigurationError("catlog needs PostgreSQL 14 or later; upgrade that server.")
        yield engine


def _version(engine: Engine, *, wait: bool) -> int:
    while True:
        try:
            with engine.connect() as connection:
                return int(connection.scalar(text("SHOW server_version_num")) or 0)
        except exc.OperationalError:
            if not wait:
                raise
            time.sleep(1)
