"""`scrapy migrate`"""

import argparse
from pathlib import Path

from catlog_scrapy.command import CatlogCommand
from catlog_scrapy.db.engine import open_database
from catlog_scrapy.db.migrations import upgrade


class Command(CatlogCommand):
    """Makes or upgrades the schema."""

    def execute(self, args: list[str], opts: argparse.Namespace) -> None:
        settings = self.project_settings
        with open_database(
            settings["CATLOG_DATABASE_URL"], Path(settings["CATLOG_HOME"])
        ) as engine:
            before, after = upgrade(engine)
        if before == after:
            self.console.print(f"the schema is at revision {after} already")
        else:
            self.console.print(f"the schema is at revision {after} now (was: {before or 'none'})")
