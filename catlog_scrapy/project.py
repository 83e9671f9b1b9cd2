"""The project at hand: its settings and its database."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scrapy.addons import AddonManager
from scrapy.settings import BaseSettings, Settings
from scrapy.utils.project import inside_project
from sqlalchemy import Engine

from catlog_scrapy import addon, config
from catlog_scrapy.db.migrations import require_head, upgrade
from catlog_scrapy.db.opening import open_database
from catlog_scrapy.exceptions import CatlogError


def prepare(settings: Settings) -> None:
    """Check that this is a catlog project, and complete and check its settings.

    Raises CatlogError. Warns on stderr of names that are not settings.
    """
    if not inside_project():
        raise CatlogError(
            "there is no Scrapy project here; go to the folder that holds its scrapy.cfg"
        )
    if not addon.is_enabled(settings):
        raise CatlogError(
            "this project does not use catlog; add to its settings:"
            ' ADDONS = {"catlog_scrapy.addon.CatlogAddon": 500}'
        )
    AddonManager.load_pre_crawler_settings(settings)
    for line in config.unknown_names(settings):
        print(f"warning: {line}", file=sys.stderr)  # noqa: T201
    config.check(settings)


@contextmanager
def project_database(settings: BaseSettings) -> Iterator[Engine]:
    """Open the database that *settings* name, at the schema revision of this catlog.

    The embedded database is upgraded on the way, another database by `scrapy migrate` alone.
    Raises CatlogError.
    """
    url = settings["CATLOG_DATABASE_URL"]
    wait = settings.getbool("CATLOG_REPLACED")
    with open_database(url, Path(settings["CATLOG_HOME"]), wait=wait) as engine:
        if url:
            require_head(engine)
        else:
            upgrade(engine)
        yield engine
