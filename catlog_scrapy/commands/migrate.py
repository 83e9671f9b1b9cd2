"""`scrapy migrate`."""

import argparse

from catlog_scrapy.commands.base import CatlogCommand
from catlog_scrapy.db.migrations import upgrade


class Command(CatlogCommand):
    """Create or upgrade catlog's schema in the database."""

    def execute(self, args: list[str], opts: argparse.Namespace) -> None:
        with self.database(any_revision=True) as engine:
            before, after = upgrade(engine)
        if before == after:
            self.console.print(f"the schema is at revision {after} already")
        else:
            self.console.print(f"the schema is at revision {after} now (was: {before or 'none'})")
