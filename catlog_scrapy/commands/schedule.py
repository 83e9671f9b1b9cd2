"""`scrapy schedule`."""

import argparse

from catlog_scrapy.commands.base import CatlogCommand, stop_signals
from catlog_scrapy.worker.pruning import Pruner
from catlog_scrapy.worker.scheduler import run_scheduler, schedule_once


class Command(CatlogCommand):
    """Run the scheduler: create due catalogs, reap, publish, prune.

    Any number of schedulers may run at once.
    """

    is_service = True

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        super().add_options(parser)
        parser.add_argument("--once", action="store_true", help="do what is due now, and end")

    def execute(self, args: list[str], opts: argparse.Namespace) -> None:
        with self.database() as engine:
            if opts.once:
                schedule_once(engine, self.project_settings, self.console)
                Pruner(engine, self.project_settings).step()
                return
            stopping = stop_signals()
            self.console.print("the scheduler runs; Ctrl-C ends it")
            run_scheduler(engine, self.project_settings, self.console, stopping)
