"""Process that runs attempts: its reactor, signals and heartbeat."""

import asyncio
import signal
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path

from scrapy.crawler import AsyncCrawlerProcess
from scrapy.settings import Settings
from sqlalchemy import Engine

from catlog_scrapy.crawl.attempt import Attempt
from catlog_scrapy.exceptions import ConfigurationError
from catlog_scrapy.redaction import redact
from catlog_scrapy.store.queue.claims import Claim
from catlog_scrapy.worker.attempt_crawl import crawl_attempt
from catlog_scrapy.worker.attempt_logs import install_attempt_logs
from catlog_scrapy.worker.heartbeat import Heartbeat
from catlog_scrapy.worker.progress import Progress

# Outcomes after which an instance waits for its next attempt, or its catalog fails.
FAILURES = ("failed", "incomplete", "timed_out")


class AttemptRunner:
    """Base of the classes that run claimed attempts in a reactor of their own.

    A runner owns its process: the reactor, the signals and the heartbeat. Each attempt logs to a
    file below *logs*; without *logs*, all attempts log as Scrapy's settings say. The heartbeat
    calls *replace* when a crawl hangs, to end or replace the process.
    """

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        progress: Progress,
        *,
        logs: Path | None,
        replace: Callable[[], None],
    ) -> None:
        for server in ("TELNETCONSOLE_ENABLED", "REMOTE_CONTROL_ENABLED"):
            settings.set(server, False, "cmdline")
        settings.set("LOG_INSTALL_ROOT_HANDLER", logs is None, "cmdline")
        if not settings.getbool("TWISTED_REACTOR_ENABLED"):
            raise ConfigurationError(
                "TWISTED_REACTOR_ENABLED = False is not supported; remove it or set it to True."
            )
        self.engine = engine
        self.settings = settings
        self.process = AsyncCrawlerProcess(settings)
        self.progress = progress
        self.logs = logs
        self.lease = settings.getfloat("CATLOG_LEASE")
        self.heartbeat = Heartbeat(engine, self.lease, replace)
        self.running: dict[asyncio.Task[None], Attempt] = {}
        self.failed: list[Claim] = []
        self.stopping = asyncio.Event()
        self.signals = 0

    def run(self) -> None:
        """Run the reactor until `_main` has returned and all its crawls have ended."""
        # AsyncCrawlerProcess has installed the asyncio reactor; an earlier import would not.
        from twisted.internet import reactor

        stop_reactor: Callable[[], None] = reactor.stop  # type: ignore[misc]
        failure: list[BaseException] = []
        loop = asyncio.get_event_loop()

        async def main() -> None:
            try:
                with self.progress:
                    await self._main()
                    while self.running:
                        await asyncio.wait(self.running)
            except BaseException as error:  # raised again below, outside of the reactor
                failure.append(error)
            finally:
                stop_reactor()

        if self.logs:
            install_attempt_logs(self.settings)
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal)
        self.heartbeat.start()
        main_task = loop.create_task(main())
        try:
            self.process.start(stop_after_crawl=False, install_signal_handlers=False)
        finally:
            self.heartbeat.end()
        if failure:
            raise failure[0]
        del main_task

    @abstractmethod
    async def _main(self) -> None:
        """Begin crawls; `run` waits for those that still run on return."""

    def _on_signal(self) -> None:
        """Stop claiming, and release the crawls: after CATLOG_GRACE, or at the second signal."""
        self.signals += 1
        self.stopping.set()
        grace = self.settings.getfloat("CATLOG_GRACE") if self.signals == 1 else 0.0
        if self.running and self.signals == 1:
            self.progress.print_line(
                f"stopping: running crawls have {grace:g} s to finish; a second signal releases"
                " them at once"
            )
        asyncio.get_running_loop().call_later(grace, self._release_all)

    def _release_all(self) -> None:
        for attempt in self.running.values():
            attempt.stop("release")

    def begin(self, claimed: Claim) -> None:
        """Begin the crawl of a claim."""
        attempt = Attempt(self.engine, claimed, ())
        if self.logs:
            attempt.report.log = str(self.logs / f"{claimed.attempt}.log")
        self.heartbeat.add(attempt)
        self.progress.started(attempt)
        task = asyncio.get_running_loop().create_task(
            crawl_attempt(self.process, self.settings, attempt)
        )
        self.running[task] = attempt
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        attempt = self.running.pop(task)
        self.heartbeat.remove(attempt)
        if not task.cancelled() and (error := task.exception()):
            attempt.error = redact(f"{type(error).__name__}: {error}")
        self.progress.ended(attempt)
        if attempt.outcome in FAILURES:
            self.failed.append(attempt.claim)
