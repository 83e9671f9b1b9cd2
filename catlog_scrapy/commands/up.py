"""`scrapy up`."""

import argparse
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from configparser import ConfigParser
from functools import partial

from scrapy.exceptions import UsageError
from scrapy.utils.conf import closest_scrapy_cfg

from catlog_scrapy.commands.background import add_background_options, run_in_background
from catlog_scrapy.commands.base import CatlogCommand, stop_signals
from catlog_scrapy.config import DEFAULTS
from catlog_scrapy.exceptions import ConfigurationError
from catlog_scrapy.processes import die_with_parent
from catlog_scrapy.readiness import NOTIFY_SOCKET, Readiness, notify_ready
from catlog_scrapy.worker.scheduler import run_scheduler

APPLICATION = "catlog_scrapy.fleet.app.application"
# Time that a node gets to drain, beyond CATLOG_GRACE; then it is killed.
DRAIN_TIMEOUT_S = 40.0


class Part:
    """Process that `scrapy up` runs beside its scheduler."""

    def __init__(self, name: str, command: Sequence[str], environment: dict[str, str]) -> None:
        self.name = name
        self.readiness = Readiness()
        self.has_ended_first = False
        # A session of its own: Ctrl-C in the terminal reaches only scrapy up, which passes it on.
        self.process = subprocess.Popen(
            command,
            env=environment | {NOTIFY_SOCKET: self.readiness.address},
            start_new_session=True,
            preexec_fn=partial(die_with_parent, os.getpid(), signal.SIGTERM),  # noqa: PLW1509
        )

    def has_ended(self) -> bool:
        """Return whether the process has ended."""
        return self.process.poll() is not None

    def wait(self, stopping: threading.Event) -> None:
        """Wait for the end, which ends the other parts too: a supervisor then restarts all."""
        self.process.wait()
        self.has_ended_first = not stopping.is_set()
        stopping.set()

    def end(self, timeout: float) -> None:
        """Wait for a process that drains; kill it after *timeout* seconds."""
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Command(CatlogCommand):
    """Run a scheduler, a node and the HTTP API on this machine.

    They start and stop together.
    """

    is_service = True

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        super().add_options(parser)
        parser.add_argument(
            "--port", type=int, metavar="N", help="port of the node's web page (default 6800)"
        )
        port = DEFAULTS["CATLOG_API_PORT"]
        parser.add_argument(
            "--api-port",
            type=int,
            metavar="N",
            help=f"port of the HTTP API, 0 for a free port (default CATLOG_API_PORT, {port})",
        )

        add_background_options(parser)

    def execute(self, args: list[str], opts: argparse.Namespace) -> int:
        if args:
            raise UsageError(f"unexpected argument {args[0]!r}")
        if not opts.stop:
            self._require_node()
        if message := run_in_background(self.name, self.project_settings, opts):
            self.console.print(message, markup=False, soft_wrap=True)
            return 0
        environment = dict(os.environ)
        if opts.port is not None:
            environment["SCRAPYD_HTTP_PORT"] = str(opts.port)
        serve = [sys.executable, "-m", "scrapy", "serve"]
        if opts.api_port is not None:
            serve += ["--port", str(opts.api_port)]
        with self.database() as engine:
            stopping = stop_signals()
            parts = [
                Part("node", [sys.executable, "-m", "scrapyd"], environment),
                Part("HTTP API", serve, environment),
            ]
            for part in parts:
                threading.Thread(target=part.wait, args=(stopping,), daemon=True).start()
            announcer = threading.Thread(target=self._announce, args=(parts,))
            announcer.start()
            try:
                run_scheduler(engine, self.project_settings, self.console, stopping)
            finally:
                for part in parts:
                    part.process.terminate()
                for part in parts:
                    part.end(self.project_settings.getfloat("CATLOG_GRACE") + DRAIN_TIMEOUT_S)
                announcer.join()
                for part in parts:
                    part.readiness.close()
        # A signal to the whole process group ends the parts too, as asked.
        ended = [part for part in parts if part.has_ended_first]
        for part in ended:
            self.console.print(f"the {part.name} ended with exit status {part.process.returncode}")
        return 1 if ended else 0

    def _announce(self, parts: list[Part]) -> None:
        """Say when all parts answer."""
        urls = [part.readiness.wait(part.has_ended) for part in parts]
        if None not in urls:
            status = ", ".join(f"{part.name} {url}" for part, url in zip(parts, urls, strict=True))
            status += f", documentation {urls[-1]}/docs"
            self.console.print(f"ready: {status}", markup=False, soft_wrap=True)
            notify_ready(status)

    def _require_node(self) -> None:
        config = ConfigParser()
        config.read(closest_scrapy_cfg())
        if config.get("scrapyd", "application", fallback="") != APPLICATION:
            raise ConfigurationError(
                "scrapyd is not a node of catlog here; add to scrapy.cfg: a section [scrapyd] with"
                f" application = {APPLICATION}"
            )
