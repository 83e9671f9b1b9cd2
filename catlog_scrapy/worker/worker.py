"""Worker: claims instances and runs each as a crawl of this process."""

import asyncio
import logging
import os
import sys
import time
from collections.abc import Callable, Collection, Sequence
from uuid import UUID

from scrapy.settings import Settings
from sqlalchemy import Engine

from catlog_scrapy.config import worker_tags
from catlog_scrapy.db.engine import UNAVAILABLE, reason
from catlog_scrapy.declarations.capabilities import read_capabilities
from catlog_scrapy.exceptions import NotPossible
from catlog_scrapy.store.maintenance.tick import tick
from catlog_scrapy.store.queue.attempts import release
from catlog_scrapy.store.queue.claims import Claim, claim
from catlog_scrapy.store.queue.starting import fail_without_retry
from catlog_scrapy.store.reading.waiting import next_attempts
from catlog_scrapy.worker.attempt_logs import logs_folder
from catlog_scrapy.worker.attempt_runner import AttemptRunner
from catlog_scrapy.worker.progress import Progress

logger = logging.getLogger(__name__)

# Time between two rounds of maintenance while crawls run.
MAINTENANCE_INTERVAL_S = 2.0


class Worker(AttemptRunner):
    """Runner of queued instances, until *finished* returns true or a signal comes.

    *finished* gets the ids of the operations that this project cannot run; they stay for other
    workers. *catalogs* returns the catalogs to claim from, all of which this worker must be able to
    run; None claims from all. Without *retry*, a failed attempt fails its catalog. Each attempt
    logs to a file of its own; without *log_files*, all attempts log as Scrapy's settings say.
    """

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        progress: Progress,
        *,
        finished: Callable[[Collection[UUID]], bool],
        catalogs: Callable[[], Sequence[UUID]] | None = None,
        concurrency: int | None = None,
        retry: bool = True,
        log_files: bool = True,
    ) -> None:
        # MEMUSAGE would end the process for the memory of one crawl among many.
        settings.set("MEMUSAGE_ENABLED", False, "cmdline")
        logs = logs_folder(settings) if log_files else None
        super().__init__(engine, settings, progress, logs=logs, replace=self._replace)
        self.finished = finished
        self.catalogs = catalogs
        self.retry = retry
        self.concurrency = concurrency or settings.getint("CATLOG_CONCURRENCY")
        self.tags = worker_tags(settings)
        self.poll = settings.getfloat("CATLOG_POLL")
        self.capabilities = read_capabilities(settings, self.process.spider_loader)
        self.refused: set[UUID] = set()
        self.maintained_at = 0.0
        self.outage = ""

    def _replace(self) -> None:
        """End a process with a hung crawl, and start it anew unless a signal came."""
        if self.signals:
            os._exit(1)
        replace_process()

    async def _main(self) -> None:
        while not self.stopping.is_set():
            try:
                await self._follow_failures()
                idle = await self._round()
                self.outage = ""
            except UNAVAILABLE as error:
                self._report_outage(reason(error))
                idle = True
            except Exception:  # running crawls finish before the error ends the worker
                self.stopping.set()
                while self.running:
                    await asyncio.wait(self.running)
                raise
            if idle and not self.running and await self._is_finished():
                break
            self.progress.report_running()
            if idle:
                await self._wait()

    async def _follow_failures(self) -> None:
        """Say when the failed instances are attempted again, or fail their catalogs."""
        failed = list(self.failed)
        if not failed:
            return
        if self.retry:
            instances = [claim.attempt.instance for claim in failed]
            for line in await asyncio.to_thread(next_attempts, self.engine, instances):
                self.progress.print_line(line)
        else:
            for catalog in {claim.catalog for claim in failed}:
                await asyncio.to_thread(fail_without_retry, self.engine, catalog)
        del self.failed[: len(failed)]

    def _report_outage(self, line: str) -> None:
        """Log an outage, and print it once, as the log may be off."""
        logger.warning("the database is unavailable: %s", line)
        if line != self.outage:
            self.outage = line
            self.progress.print_line(f"the database is unavailable: {line}; waiting for it")

    async def _is_finished(self) -> bool:
        try:
            return await asyncio.to_thread(self.finished, self.refused)
        except UNAVAILABLE:
            return False

    async def _round(self) -> bool:
        """Do maintenance and claim once; return whether there was nothing to do."""
        done = 0
        if not self.running or time.monotonic() - self.maintained_at > MAINTENANCE_INTERVAL_S:
            done = await asyncio.to_thread(tick, self.engine, self.lease)
            self.maintained_at = time.monotonic()
        free = self.concurrency - len(self.running)
        claims = await asyncio.to_thread(self._claim, free) if free else []
        for claimed in claims:
            self.begin(claimed)
        return not claims and not done

    def _claim(self, limit: int) -> list[Claim]:
        claims = claim(
            self.engine,
            self.settings["CATLOG_NODE"],
            limit=limit,
            lease=self.lease,
            catalogs=self.catalogs() if self.catalogs else None,
            tags=self.tags,
            logs=str(self.logs) if self.logs else None,
            refused=self.refused,
        )
        accepted, refused = [], []
        for claimed in claims:
            unsupported = self._reason_unsupported(claimed)
            if unsupported is None:
                accepted.append(claimed)
            else:
                self._refuse(claimed, unsupported)
                refused.append(f"{claimed.title}: {unsupported}")
        if refused and self.catalogs:
            for claimed in accepted:
                release(self.engine, claimed.attempt)
            raise NotPossible(
                f"{refused[0]}; the catalog stays queued: scrapy work continues it, and scrapy"
                " cancel ends it."
            )
        return accepted

    def _reason_unsupported(self, claimed: Claim) -> str | None:
        if claimed.project_version is not None:
            return "only a node can run it, with a deployed version of its project"
        return self.capabilities.reason_unsupported(claimed)

    def _refuse(self, claimed: Claim, unsupported: str) -> None:
        """Release a claim that this project cannot run, and claim no similar ones."""
        self.refused.add(claimed.refusal_id)
        release(self.engine, claimed.attempt, error=f"refused: {unsupported}")
        self.progress.print_line(f"{claimed.title}: left for another worker: {unsupported}")

    async def _wait(self) -> None:
        """Wait until a crawl ends, a signal comes, or the poll interval is over."""
        stop = asyncio.ensure_future(self.stopping.wait())
        await asyncio.wait(
            [*self.running, stop], timeout=self.poll, return_when=asyncio.FIRST_COMPLETED
        )
        stop.cancel()


def replace_process() -> None:
    """Replace this process by a new run of its command, as Python cannot end a hung thread."""
    os.environ["CATLOG_REPLACED"] = "1"
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
