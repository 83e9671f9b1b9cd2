"""`scrapy work`."""

import argparse

from catlog_scrapy.commands.base import CatlogCommand
from catlog_scrapy.config import DEFAULTS, worker_tags
from catlog_scrapy.project import warn_of_unmatched_variables
from catlog_scrapy.store.reading.status import has_open_work
from catlog_scrapy.worker.progress import Progress
from catlog_scrapy.worker.worker import Worker


class Command(CatlogCommand):
    """Run a worker: it loads what is queued.

    Any number of workers may run at once, on any machine.
    """

    is_service = True

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        super().add_options(parser)
        crawls = DEFAULTS["CATLOG_CONCURRENCY"]
        parser.add_argument("--drain", action="store_true", help="end when the queue is empty")
        parser.add_argument(
            "--concurrency",
            type=int,
            metavar="N",
            help=f"crawls at the same time (default CATLOG_CONCURRENCY, {crawls})",
        )

    def execute(self, args: list[str], opts: argparse.Namespace) -> None:
        if opts.concurrency is not None and opts.concurrency < 1:
            self.fail(f"--concurrency is {opts.concurrency}; use a whole number above 0")
        tags = worker_tags(self.project_settings)
        with self.database() as engine:
            warn_of_unmatched_variables(engine, self.project_settings)
            Worker(
                engine,
                self.project_settings,
                Progress(self.console),
                finished=lambda refused: opts.drain and not has_open_work(engine, refused, tags),
                concurrency=opts.concurrency,
            ).run()
