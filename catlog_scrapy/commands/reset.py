"""`scrapy reset`."""

import argparse

from scrapy.exceptions import UsageError

from catlog_scrapy.commands.base import CatlogCommand
from catlog_scrapy.plurals import counted
from catlog_scrapy.store.maintenance.reset import reset


class Command(CatlogCommand):
    """Delete what a scheme has loaded, to load it from nothing.

    Without --yes it only prints what would be deleted, and exits with 1.
    """

    def syntax(self) -> str:
        return "[options] PROVIDER/SCHEME[/OPERATION]"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        super().add_options(parser)
        parser.add_argument(
            "--yes", action="store_true", help="delete, instead of printing what would be deleted"
        )

    def execute(self, args: list[str], opts: argparse.Namespace) -> int:
        provider, _, rest = (args or [""])[0].partition("/")
        scheme, _, operation = rest.partition("/")
        if len(args) != 1 or not provider or not scheme:
            raise UsageError("write one PROVIDER/SCHEME[/OPERATION]")
        with self.database() as engine:
            done = reset(engine, provider, scheme, operation or None, dry_run=not opts.yes)
        self.console.print(
            f"{'deleted' if opts.yes else 'would delete'}: {counted(done.records, 'record')} of"
            f" {', '.join(done.kinds)} with {counted(done.versions, 'former version')},"
            f" {counted(done.results, 'result')}, {counted(done.rejected, 'rejected item')},"
            f" {counted(done.scopes, 'high-water mark')}",
            markup=False,
        )
        self.console.print(
            f"{counted(done.catalogs, 'catalog')} kept as history, without retry; their due times"
            " can be backfilled again",
            markup=False,
        )
        if not opts.yes:
            self.console.print(f"nothing is deleted yet; scrapy reset {args[0]} --yes deletes it")
            return 1
        return 0
