"""`scrapy retry`."""

import argparse

from scrapy.exceptions import UsageError

from catlog_scrapy.commands.base import CatlogCommand
from catlog_scrapy.store.queue import catalogs
from catlog_scrapy.store.reading.status import find_catalog


class Command(CatlogCommand):
    """Queue a failed or cancelled catalog again.

    Instances that are done stay done.
    """

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        super().add_options(parser)
        parser.add_argument(
            "--now",
            action="store_true",
            help="also take an open catalog, and begin the attempts that it waits for now",
        )

    def syntax(self) -> str:
        return "[options] CATALOG"

    def execute(self, args: list[str], opts: argparse.Namespace) -> None:
        if len(args) != 1:
            raise UsageError("write one catalog id, or its first characters")
        with self.database() as engine:
            catalog = find_catalog(engine, args[0])
            retry = catalogs.retry_now if opts.now else catalogs.retry
            retry(engine, catalog["id"])
        self.console.print(f"catalog {catalog['id']} is queued; scrapy work --drain loads it")
