"""`scrapy backfill`."""

import argparse
import datetime as dt

from scrapy.exceptions import UsageError

from catlog_scrapy.commands.base import CatlogCommand
from catlog_scrapy.plurals import counted
from catlog_scrapy.store.queue.schedules.backfill import backfill


class Command(CatlogCommand):
    """Queue catalogs for past due times.

    They fill their own catalogs; current records do not change.
    """

    def syntax(self) -> str:
        return "[options] PROVIDER/SCHEME --from DATE --to DATE"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        super().add_options(parser)
        parser.add_argument("--from", dest="first", metavar="DATE", help="first day, YYYY-MM-DD")
        parser.add_argument("--to", dest="last", metavar="DATE", help="last day, YYYY-MM-DD")

    def execute(self, args: list[str], opts: argparse.Namespace) -> None:
        provider, _, scheme = (args or [""])[0].partition("/")
        if len(args) != 1 or not provider or not scheme:
            raise UsageError("write one PROVIDER/SCHEME")
        try:
            first, last = (
                dt.date.fromisoformat(opts.first or ""),
                dt.date.fromisoformat(opts.last or ""),
            )
        except ValueError:
            raise UsageError("write --from YYYY-MM-DD --to YYYY-MM-DD") from None
        if last < first:
            raise UsageError(f"--to {last} lies before --from {first}")
        with self.database() as engine:
            made, present = backfill(engine, provider, scheme, first, last)
        self.console.print(
            f"{counted(len(made), 'catalog')} queued; {counted(present, 'due time')} had a"
            " catalog already; scrapy work --drain loads what is queued"
        )
