"""`scrapy schedule`"""

import argparse
import signal
import threading

from sqlalchemy import Engine

from catlog_scrapy.command import CatlogCommand
from catlog_scrapy.database import UNAVAILABLE, reason
from catlog_scrapy.running.tending import tend
from catlog_scrapy.store.schedules import make_due


class Command(CatlogCommand):
    """Makes what is due; any number of these may run at once."""

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        super().add_options(parser)
        parser.add_argument("--once", action="store_true", help="do what is due now, then end")

    def execute(self, args: list[str], opts: argparse.Namespace) -> None:
        stopping = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopping.set())
        with self.database() as engine:
            if opts.once:
                self._round(engine)
                return
            self.console.print("scheduling; Ctrl-C ends it")
            while not stopping.is_set():
                try:
                    self._round(engine)
                except UNAVAILABLE as error:
                    self.console.print(f"the database is away: {reason(error)}", markup=False)
                stopping.wait(self.project_settings.getfloat("CATLOG_POLL"))

    def _round(self, engine: Engine) -> None:
        for catalog_id in make_due(engine):
            self.console.print(f"due: catalog {catalog_id}")
        tend(engine, self.project_settings.getfloat("CATLOG_LEASE"))
