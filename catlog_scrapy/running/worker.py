"""Claims instances and runs each as a crawl of this process."""

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from scrapy import Spider
from scrapy.crawler import AsyncCrawlerProcess
from scrapy.settings import Settings
from sqlalchemy import Engine

from catlog_scrapy.attempt import Attempt, assign
from catlog_scrapy.database import UNAVAILABLE, reason
from catlog_scrapy.declarations import operation_record_types
from catlog_scrapy.exceptions import AttemptLost, ConfigurationError
from catlog_scrapy.pipelines.store import persist
from catlog_scrapy.running.heartbeat import Heartbeat
from catlog_scrapy.running.isolation import run_isolated
from catlog_scrapy.running.logs import attempt_log, install
from catlog_scrapy.running.progress import Progress
from catlog_scrapy.running.tending import tend
from catlog_scrapy.store.attempts import fail, release
from catlog_scrapy.store.claims import Claim, claim
from catlog_scrapy.store.status import attempt_error

logger = logging.getLogger(__name__)

# What makes sense once a process, not once a crawl.
IN_PROCESS = {
    "TELNETCONSOLE_ENABLED": False,
    "MEMUSAGE_ENABLED": False,
}
# Seconds between two looks for expired leases and waiting catalogs while there is enough to run.
TEND_EVERY = 2.0


class Worker:
    """Runs what is queued, until *finished* says that there is no more, or a signal comes.

    *catalogs* narrows it to these catalogs. Each attempt logs to a file of its own, unless
    *log_files* is off: then all log as Scrapy's settings say.
    """

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        progress: Progress,
        *,
        finished: Callable[[], bool],
        catalogs: Callable[[], Sequence[UUID]] | None = None,
        concurrency: int | None = None,
        log_files: bool = True,
    ) -> None:
        for name, value in IN_PROCESS.items():
            settings.set(name, value, "cmdline")
        settings.set("LOG_INSTALL_ROOT_HANDLER", not log_files, "cmdline")
        if not settings.getbool("TWISTED_REACTOR_ENABLED"):
            raise ConfigurationError("catlog needs TWISTED_REACTOR_ENABLED = True.")
        self.engine = engine
        self.settings = settings
        self.process = AsyncCrawlerProcess(settings)
        self.progress = progress
        self.finished = finished
        self.catalogs = catalogs
        self.concurrency = concurrency or settings.getint("CATLOG_CONCURRENCY")
        self.lease = settings.getfloat("CATLOG_LEASE")
        self.poll = settings.getfloat("CATLOG_POLL")
        self.logs = Path(settings["CATLOG_HOME"]) / "logs" if log_files else None
        self.heartbeat = Heartbeat(engine, self.lease, self._replace)
        self.running: dict[asyncio.Task[None], Attempt] = {}
        self.given: list[Claim] = []
        self.stopping = asyncio.Event()
        self.signals = 0
        self.tended = 0.0

    def run(self) -> None:
        """Work, in a reactor of its own. Raises what the database or the store raises."""
        # Only now: AsyncCrawlerProcess has installed the right one.
        from twisted.internet import reactor

        stop_reactor: Callable[[], None] = reactor.stop  # type: ignore[misc]
        failure: list[BaseException] = []
        loop = asyncio.get_event_loop()

        async def main() -> None:
            try:
                await self._main()
            except BaseException as error:  # carried over the reactor to the caller
                failure.append(error)
            finally:
                stop_reactor()

        if self.logs:
            install(self.settings)
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._signalled)
        self.heartbeat.start()
        main_task = loop.create_task(main())
        try:
            self.process.start(stop_after_crawl=False, install_signal_handlers=False)
        finally:
            self.heartbeat.end()
        if failure:
            raise failure[0]
        del main_task

    def _replace(self) -> None:
        """Be rid of a crawl that hangs: go on anew, or be gone if this process was to end."""
        if self.signals:
            os._exit(1)
        replace_process()

    def _signalled(self) -> None:
        """The first signal stops claiming, and the crawls after a grace; the second at once."""
        self.signals += 1
        self.stopping.set()
        if self.running and self.signals == 1:
            self.progress.say(
                f"stopping: what runs may go on for {self.settings.getfloat('CATLOG_GRACE'):g} s;"
                " a second signal releases it at once"
            )
        grace = self.settings.getfloat("CATLOG_GRACE") if self.signals == 1 else 0.0
        asyncio.get_running_loop().call_later(grace, self._release_all)

    def _release_all(self) -> None:
        for attempt in self.running.values():
            attempt.stop("release")

    async def _main(self) -> None:
        with self.progress:
            while not self.stopping.is_set():
                try:
                    idle = await self._round()
                except UNAVAILABLE as error:
                    logger.warning("the database is away: %s", reason(error))
                    idle = True
                except Exception:  # whatever it is: what runs is not abandoned for it
                    self.stopping.set()
                    await self._finish_running()
                    raise
                if idle and not self.running and await self._is_finished():
                    break
                self.progress.goes_on()
                if idle:
                    await self._wait()
            await self._finish_running()

    async def _finish_running(self) -> None:
        while self.running:
            await asyncio.wait(self.running)

    async def _is_finished(self) -> bool:
        try:
            return await asyncio.to_thread(self.finished)
        except UNAVAILABLE:
            return False

    async def _round(self) -> bool:
        """Tend and claim once; True when there was nothing to do."""
        done = 0
        if not self.running or time.monotonic() - self.tended > TEND_EVERY:
            done = await asyncio.to_thread(tend, self.engine, self.lease)
            self.tended = time.monotonic()
        if self.given:
            self.begin(self.given.pop())
        free = self.concurrency - len(self.running)
        claims = await asyncio.to_thread(self._claim, free) if free else []
        for claimed in claims:
            self.begin(claimed)
        return not claims and not done

    def _claim(self, limit: int) -> list[Claim]:
        return claim(
            self.engine,
            self.settings["CATLOG_NODE"],
            limit=limit,
            lease=self.lease,
            catalogs=self.catalogs() if self.catalogs else None,
            logs=str(self.logs) if self.logs else None,
        )

    async def _wait(self) -> None:
        """Until a crawl ends, a signal comes, or it is time to look again."""
        stop = asyncio.ensure_future(self.stopping.wait())
        await asyncio.wait(
            [*self.running, stop], timeout=self.poll, return_when=asyncio.FIRST_COMPLETED
        )
        stop.cancel()

    def begin(self, claimed: Claim) -> None:
        """Run what this worker has claimed."""
        attempt = Attempt(self.engine, claimed, ())
        if self.logs:
            attempt.report.log = str(self.logs / f"{claimed.attempt}.log")
        self.heartbeat.add(attempt)
        self.progress.started(attempt)
        task = asyncio.get_running_loop().create_task(self._run(attempt))
        self.running[task] = attempt
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        attempt = self.running.pop(task)
        self.heartbeat.remove(attempt)
        if not task.cancelled() and (error := task.exception()):
            attempt.error = f"{type(error).__name__}: {error}"
        self.progress.ended(attempt)

    async def _run(self, attempt: Attempt) -> None:
        """Run one attempt to its end, whatever becomes of the crawl."""
        with attempt_log(attempt.report.log, self.settings):
            try:
                if attempt.claim.isolate:
                    await run_isolated(attempt)
                else:
                    await self.crawl(attempt)
            except Exception as error:  # the boundary to foreign code: a spider may raise anything
                logger.exception("the crawl did not start")
                attempt.raised("starting the spider", error)
            if attempt.outcome is None:
                await asyncio.to_thread(_end_unopened, attempt)
            if attempt.outcome not in ("done", "lost"):
                attempt.error = await asyncio.to_thread(_error_of, attempt)

    async def crawl(self, attempt: Attempt) -> None:
        """One crawl of this process. Raises whatever making the spider raises."""
        claimed = attempt.claim
        spidercls: type[Spider] = self.process.spider_loader.load(claimed.spider)
        attempt.records = {
            record.kind: record for record in operation_record_types(spidercls, claimed.kinds)
        }
        crawler = self.process.create_crawler(spidercls)
        assign(crawler, attempt)
        await crawler.crawl_async(**spider_arguments(claimed, self.settings))


def spider_arguments(claimed: Claim, settings: Settings) -> dict[str, Any]:
    """What the spider gets, as with `-a`: its arguments, and the provider's base URL if it has one.

    CATLOG_BASE_URL_<PROVIDER> overrides the declared one.
    """
    override = "CATLOG_BASE_URL_" + claimed.provider.upper().replace("-", "_")
    base_url = settings.get(override) or claimed.base_url
    return {**({"base_url": base_url} if base_url else {}), **claimed.arguments}


def _end_unopened(attempt: Attempt) -> None:
    """End an attempt whose crawl never opened, or ended without a word."""
    name, report = attempt.claim.attempt, attempt.report
    error = report.errors[0] if report.errors else "the crawl ended without closing its spider"

    def end() -> str:
        if attempt.stop_answer == "release":
            return release(attempt.engine, name, report)
        outcome = "timed_out" if attempt.stop_answer == "timed_out" else "failed"
        return fail(attempt.engine, name, error, outcome=outcome, report=report)

    try:
        attempt.outcome = persist(attempt, end, patience=10.0)
        attempt.error = error
    except AttemptLost as lost:
        attempt.outcome, attempt.error = "lost", str(lost)


def _error_of(attempt: Attempt) -> str | None:
    try:
        return attempt_error(attempt.engine, attempt.claim.attempt)
    except UNAVAILABLE as error:
        return reason(error)


def replace_process() -> None:
    """Start this command anew in place of this process: a thread that hangs cannot be ended."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
