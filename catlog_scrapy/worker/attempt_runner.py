"""The crawls of this process, each for an attempt."""

import asyncio
import contextlib
import logging
import signal
from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from scrapy import Spider
from scrapy.crawler import AsyncCrawlerProcess
from scrapy.settings import Settings
from sqlalchemy import Engine

from catlog_scrapy.crawl.attempt import Attempt, assign
from catlog_scrapy.db.engine import UNAVAILABLE, reason
from catlog_scrapy.declarations import base_url_of, operation_record_types
from catlog_scrapy.declarations import spider_arguments as known_arguments
from catlog_scrapy.exceptions import AttemptLost, ConfigurationError
from catlog_scrapy.pipelines.store import persist, run_in_thread
from catlog_scrapy.redaction import read_secrets, redact
from catlog_scrapy.store.queue.attempts import fail
from catlog_scrapy.store.queue.claims import Claim
from catlog_scrapy.store.queue.resuming import fresh_records, resume_cursor
from catlog_scrapy.store.reading.status import attempt_error
from catlog_scrapy.worker.attempt_logs import attempt_log, install_attempt_logs
from catlog_scrapy.worker.heartbeat import Heartbeat
from catlog_scrapy.worker.isolation import run_isolated
from catlog_scrapy.worker.progress import Progress

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Seconds to wait for what is only to be told to people.
ERROR_QUERY_TIMEOUT_S = 10.0


class AttemptRunner:
    """Runs what was claimed, in a reactor of its own; which that is, its subclasses say.

    It owns the process: the reactor, the signals, the heartbeat. Each attempt logs to a file of
    its own below *logs*; without, all log as Scrapy's settings say. A process that has to be
    *replaced* is one in which a crawl hangs.
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
            raise ConfigurationError("catlog needs TWISTED_REACTOR_ENABLED = True.")
        self.engine = engine
        self.settings = settings
        self.process = AsyncCrawlerProcess(settings)
        self.progress = progress
        self.logs = logs
        self.lease = settings.getfloat("CATLOG_LEASE")
        self.heartbeat = Heartbeat(engine, self.lease, replace)
        self.running: dict[asyncio.Task[None], Attempt] = {}
        self.stopping = asyncio.Event()
        self.signals = 0

    def run(self) -> None:
        """Work. Raises what the database or the store raises."""
        # Only now: AsyncCrawlerProcess has installed the right one.
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
            except BaseException as error:  # carried over the reactor to the caller
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
        """Begin crawls. What still runs when it returns is waited for."""

    def _on_signal(self) -> None:
        """The first signal stops claiming, and the crawls after a grace; the second at once."""
        self.signals += 1
        self.stopping.set()
        if self.running and self.signals == 1:
            self.progress.print_line(
                f"stopping: what runs may go on for {self.settings.getfloat('CATLOG_GRACE'):g} s;"
                " a second signal releases it at once"
            )
        grace = self.settings.getfloat("CATLOG_GRACE") if self.signals == 1 else 0.0
        asyncio.get_running_loop().call_later(grace, self._release_all)

    def _release_all(self) -> None:
        for attempt in self.running.values():
            attempt.stop("release")

    def begin(self, claimed: Claim) -> None:
        """Run what was claimed for this process."""
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
            attempt.error = redact(f"{type(error).__name__}: {error}")
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
                attempt.record_error("starting the spider", error)
            if attempt.outcome is None:
                await asyncio.to_thread(_end_unopened, attempt)
            if attempt.outcome not in ("done", "lost"):
                # A network that swallows the question must not keep the slot.
                with contextlib.suppress(TimeoutError):
                    query = asyncio.to_thread(_read_error, attempt)
                    attempt.error = await asyncio.wait_for(query, ERROR_QUERY_TIMEOUT_S)

    async def crawl(self, attempt: Attempt) -> None:
        """One crawl of this process. Raises whatever making the spider raises."""
        claimed = attempt.claim
        spidercls: type[Spider] = self.process.spider_loader.load(claimed.spider)
        attempt.records = {
            record.kind: record for record in operation_record_types(spidercls, claimed.kinds)
        }
        crawler = self.process.create_crawler(spidercls)
        crawler.settings.update(claimed.settings, "cmdline")
        assign(crawler, attempt)
        known = known_arguments(spidercls)
        needed = [name for name in claimed.secrets if name in known]
        attempt.secrets = read_secrets(claimed.provider, needed)
        arguments = spider_arguments(claimed, self.settings, attempt.secrets)
        if claimed.mode == "incremental" and hasattr(spidercls, "cursor"):
            cursor = await self._query(attempt, resume_cursor)
            attempt.report.resumed = bool(cursor)
            arguments.setdefault("cursor", cursor)
        if claimed.limits.get("refresh"):
            arguments["fresh"] = await self._query(attempt, fresh_records)
        await crawler.crawl_async(**arguments)

    async def _query(self, attempt: Attempt, question: Callable[[Engine, Claim], T]) -> T:
        """What the database answers, however long it is away."""
        return await run_in_thread(
            attempt, lambda: persist(attempt, lambda: question(self.engine, attempt.claim))
        )


def spider_arguments(
    claimed: Claim, settings: Settings, secrets: Mapping[str, str]
) -> dict[str, Any]:
    """What the spider gets, as with `-a`: its arguments, the provider's secrets and base URL.

    Nothing overrides a secret.
    """
    base_url = base_url_of(settings, claimed.provider, claimed.base_url)
    return {**({"base_url": base_url} if base_url else {}), **claimed.arguments, **secrets}


def _end_unopened(attempt: Attempt) -> None:
    """End an attempt whose crawl never opened, or ended without a word."""
    report = attempt.report
    error = report.errors[0] if report.errors else "the crawl ended without closing its spider"

    def end() -> str:
        if attempt.stop_code:
            return attempt.end_stopped()
        return fail(attempt.engine, attempt.claim.attempt, error, report=report)

    try:
        attempt.outcome = persist(attempt, end, grace_s=10.0)
        attempt.error = error
    except AttemptLost as lost:
        attempt.outcome, attempt.error = "lost", str(lost)


def _read_error(attempt: Attempt) -> str | None:
    try:
        return attempt_error(attempt.engine, attempt.claim.attempt)
    except UNAVAILABLE as error:
        return reason(error)
