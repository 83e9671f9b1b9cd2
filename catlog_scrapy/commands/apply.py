"""`scrapy apply`."""

import argparse

from catlog_scrapy.commands.base import CatlogCommand
from catlog_scrapy.declarations import apply
from catlog_scrapy.project import warn_of_unmatched_variables


class Command(CatlogCommand):
    """Bring the declarations into the database.

    Prints what is added, changed and retired.
    """

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        super().add_options(parser)
        parser.add_argument(
            "--check",
            action="store_true",
            help="only print; exit with 1 if there are changes",
        )

    def execute(self, args: list[str], opts: argparse.Namespace) -> int:
        with self.database() as engine:
            changes = apply(engine, self.project_settings, check_only=opts.check)
            if not opts.check:  # a check does not store new providers
                warn_of_unmatched_variables(engine, self.project_settings)
        for change in changes:
            self.console.print(str(change), markup=False, soft_wrap=True)
        if not changes:
            self.console.print("nothing to change")
        return 1 if opts.check and changes else 0
