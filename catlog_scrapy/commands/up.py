"""`scrapy up`"""

import argparse
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from configparser import ConfigParser
from functools import partial

from scrapy.utils.conf import closest_scrapy_cfg

from catlog_scrapy.commands.base import CatlogCommand, stop_signals
from catlog_scrapy.config import DEFAULTS
from catlog_scrapy.exceptions import ConfigurationError
from catlog_scrapy.processes import die_with_parent
from catlog_scrapy.worker.scheduler import run_scheduler

APPLICATION = "catlog_scrapy.fleet.app.application"
# Seconds beyond CATLOG_GRACE that a node may take to drain; then it is killed.
PATIENCE = 40.0


class Command(CatlogCommand):
    """Run a scheduler, a node and the HTTP API on this machine.

    They start and stop together.
    """

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        super().add_options(parser)
        parser.add_argument(
            "--port", type=int, metavar="N", help="port of the node's web page (default: 6800)"
        )
        port = DEFAULTS["CATLOG_API_PORT"]
        parser.add_argument(
            "--api-port",
            type=int,
            metavar="N",
            help=f"port of the HTTP API, 0 for a free port (default: CATLOG_API_PORT, {port})",
        )

    def execute(self, args: list[str], opts: argparse.Namespace) -> int:
        self._require_node()
        stopping = stop_signals()
        environment = dict(os.environ)
        if opts.port:
            environment["SCRAPYD_HTTP_PORT"] = str(opts.port)
        serve = [sys.executable, "-m", "scrapy", "serve"]
        if opts.api_port is not None:
            serve += ["--port", str(opts.api_port)]
        with self.database() as engine:
            parts = {
                "node": _start([sys.executable, "-m", "scrapyd"], environment),
                "server": _start(serve, environment),
            }
            for part in parts.values():
                threading.Thread(target=_wait, args=(part, stopping), daemon=True).start()
            try:
                run_scheduler(engine, self.project_settings, self.console, stopping)
            finally:
                ended = {name: part for name, part in parts.items() if part.poll() is not None}
                for part in parts.values():
                    part.terminate()
                for part in parts.values():
                    self._end(part)
        for name, part in ended.items():
            self.console.print(f"the {name} ended with exit status {part.returncode}")
        return 1 if ended else 0

    def _require_node(self) -> None:
        config = ConfigParser()
        config.read(closest_scrapy_cfg())
        if config.get("scrapyd", "application", fallback="") != APPLICATION:
            raise ConfigurationError(
                f"scrapyd here is no node: write `[scrapyd]` and `application = {APPLICATION}`"
                " into scrapy.cfg."
            )

    def _end(self, part: "subprocess.Popen[bytes]") -> None:
        """Wait for one that drains; not for ever."""
        try:
            part.wait(self.project_settings.getfloat("CATLOG_GRACE") + PATIENCE)
        except subprocess.TimeoutExpired:
            part.kill()
            part.wait()


def _start(command: Sequence[str], environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    # In a session of its own: of Ctrl-C in the terminal it hears from here, once.
    return subprocess.Popen(
        command,
        env=environment,
        start_new_session=True,
        preexec_fn=partial(die_with_parent, os.getpid(), signal.SIGTERM),  # noqa: PLW1509
    )


def _wait(part: "subprocess.Popen[bytes]", stopping: threading.Event) -> None:
    """A part that ends ends the others too: whoever started them starts all again."""
    part.wait()
    stopping.set()
