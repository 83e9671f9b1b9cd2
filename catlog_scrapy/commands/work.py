"""`scrapy work`"""

import argparse

from catlog_scrapy.command import CatlogCommand
from catlog_scrapy.store.reading.status import has_open_work
from catlog_scrapy.worker.progress import Progress
from catlog_scrapy.worker.worker import Worker


class Command(CatlogCommand):
    """Runs what is queued; any number of these may run at once, on any machine."""

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        super().add_options(parser)
        parser.add_argument("--drain", action="store_true", help="end when nothing is left to do")
        parser.add_argument(
            "--concurrency", type=int, metavar="N", help="crawls at once (CATLOG_CONCURRENCY)"
        )

    def execute(self, args: list[str], opts: argparse.Namespace) -> None:
        if opts.concurrency is not None and opts.concurrency < 1:
            self.fail("--concurrency needs a number from 1")
        with self.database() as engine:
            Worker(
                engine,
                self.project_settings,
                Progress(self.console),
                finished=lambda refused: opts.drain and not has_open_work(engine, refused),
                concurrency=opts.concurrency,
            ).run()
