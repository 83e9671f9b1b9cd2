"""`scrapy up`"""

import argparse
import os
import signal
import subprocess
import sys
import threading
from configparser import ConfigParser
from functools import partial

from scrapy.utils.conf import closest_scrapy_cfg

from catlog_scrapy.command import CatlogCommand, stop_signals
from catlog_scrapy.exceptions import ConfigurationError
from catlog_scrapy.processes import die_with
from catlog_scrapy.running.scheduler import schedule

APPLICATION = "catlog_scrapy.fleet.app.application"
# Seconds beyond CATLOG_GRACE that a node may take to drain; then it is killed.
PATIENCE = 40.0


class Command(CatlogCommand):
    """A scheduler and a node on this machine, started and stopped together."""

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        super().add_options(parser)
        parser.add_argument("--port", type=int, metavar="N", help="of the node's web page (6800)")

    def execute(self, args: list[str], opts: argparse.Namespace) -> int:
        self._require_node()
        stopping = stop_signals()
        environment = dict(os.environ)
        if opts.port:
            environment["SCRAPYD_HTTP_PORT"] = str(opts.port)
        with self.database() as engine:
            # In a session of its own: of Ctrl-C in the terminal it hears from here, once.
            node = subprocess.Popen(
                [sys.executable, "-m", "scrapyd"],
                env=environment,
                start_new_session=True,
                preexec_fn=partial(die_with, os.getpid(), signal.SIGTERM),  # noqa: PLW1509
            )
            threading.Thread(target=_wait, args=(node, stopping), daemon=True).start()
            try:
                schedule(engine, self.project_settings, self.console, stopping)
            finally:
                ended = node.poll() is not None
                self._end(node)
        if ended:
            self.console.print(f"the node ended with exit status {node.returncode}")
        return 1 if ended else 0

    def _require_node(self) -> None:
        config = ConfigParser()
        config.read(closest_scrapy_cfg())
        if config.get("scrapyd", "application", fallback="") != APPLICATION:
            raise ConfigurationError(
                f"scrapyd here is no node: write `[scrapyd]` and `application = {APPLICATION}`"
                " into scrapy.cfg."
            )

    def _end(self, node: "subprocess.Popen[bytes]") -> None:
        """Have the node drain, and wait for it."""
        node.terminate()
        try:
            node.wait(self.project_settings.getfloat("CATLOG_GRACE") + PATIENCE)
        except subprocess.TimeoutExpired:
            node.kill()
            node.wait()


def _wait(node: "subprocess.Popen[bytes]", stopping: threading.Event) -> None:
    """A node that ends ends the scheduler too: whoever started both starts both again."""
    node.wait()
    stopping.set()
