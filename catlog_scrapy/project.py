"""The project at hand: its settings and its database."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from scrapy.addons import AddonManager
from scrapy.settings import BaseSettings, Settings
from scrapy.utils.project import inside_project

from catlog_scrapy import addon, config
from catlog_scrapy.console import warn
from catlog_scrapy.db.driver import DriverConnection, connect
from catlog_scrapy.db.embedded import EmbeddedServer
from catlog_scrapy.db.migrations import require_head, upgrade
from catlog_scrapy.db.restarting import running_server
from catlog_scrapy.exceptions import CatlogError

if TYPE_CHECKING:  # commands that only read do without SQLAlchemy; see db/driver.py
    from sqlalchemy import Engine


def prepare(settings: Settings) -> None:
    """Check that this is a catlog project, and complete and check its settings.

    Raises CatlogError. Warns on stderr of names that are not settings.
    """
    if not inside_project():
        raise CatlogError("no Scrapy project here; go to the folder that holds its scrapy.cfg")
    if not addon.is_enabled(settings):
        raise CatlogError(
            "this project does not use catlog; add to its settings:"
            ' ADDONS = {"catlog_scrapy.addon.CatlogAddon": 500}'
        )
    AddonManager.load_pre_crawler_settings(settings)
    for line in config.unknown_names(settings):
        warn(line)
    config.check(settings)


def warn_of_unmatched_variables(engine: Engine, settings: BaseSettings) -> None:
    """Warn on stderr of variables that are named after a provider that is not declared."""
    from catlog_scrapy.declarations.variables import unmatched_variables

    for line in unmatched_variables(engine, settings):
        warn(line)


@contextmanager
def project_database(settings: BaseSettings, *, any_revision: bool = False) -> Iterator[Engine]:
    """Open the database that *settings* name; unless *any_revision*, at catlog's schema revision.

    The embedded database is upgraded on the way, another database by `scrapy migrate` alone.
    Raises CatlogError.
    """
    from catlog_scrapy.db.opening import open_database

    wait = settings.getbool("CATLOG_REPLACED")
    with _database_url(settings) as url, open_database(url, wait=wait) as engine:
        if settings["CATLOG_DATABASE_URL"] and not any_revision:
            require_head(engine)
        elif not any_revision:
            upgrade(engine)
        yield engine


@contextmanager
def readable_database(settings: BaseSettings) -> Iterator[Engine | DriverConnection]:
    """Open the database to read it: without SQLAlchemy, unless there is more to do or to explain.

    Raises CatlogError.
    """
    with _database_url(settings) as url:
        connection = connect(url)
        with connection or project_database(settings) as database:
            yield database


@contextmanager
def _database_url(settings: BaseSettings) -> Iterator[str]:
    """Return the database's URL; an embedded server runs, and is restarted, within the block."""
    if url := settings["CATLOG_DATABASE_URL"]:
        yield url
        return
    linger = settings.getfloat("CATLOG_EMBEDDED_LINGER")
    # Descriptors, because sys.stdin and sys.stdout are None where they are closed.
    has_terminal = os.isatty(0) and os.isatty(1)
    server = EmbeddedServer(
        Path(settings["CATLOG_HOME"]), linger=linger if has_terminal or not linger else None
    )
    with running_server(server) as url:
        yield url
