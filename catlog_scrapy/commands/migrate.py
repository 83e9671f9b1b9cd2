"""`scrapy migrate`"""

import argparse
from pathlib import Path

from catlog_scrapy.commands.base import CatlogCommand
from catlog_scrapy.db.migrations import upgrade
from catlog_scrapy.db.opening import open_database


class Command(CatlogCommand):
    """Create or upgrade catlog's schema in the database."""

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
