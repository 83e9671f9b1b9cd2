"""`scrapy cancel`."""

import argparse

from scrapy.exceptions import UsageError

from catlog_scrapy.commands.base import CatlogCommand
from catlog_scrapy.store.queue import catalogs
from catlog_scrapy.store.reading.status import find_catalog


class Command(CatlogCommand):
    """Cancel a catalog, wherever it runs.

    Attempts that run for it end at their next heartbeat.
    """

    def syntax(self) -> str:
        return "[options] CATALOG"

    def execute(self, args: list[str], opts: argparse.Namespace) -> None:
        if len(args) != 1:
            raise UsageError("write one catalog id, or its first characters")
        with self.database() as engine:
            catalog = find_catalog(engine, args[0])
            catalogs.cancel(engine, catalog["id"])
        self.console.print(f"catalog {catalog['id']} is cancelled")
