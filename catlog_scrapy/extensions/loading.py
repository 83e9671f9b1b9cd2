"""Follows a crawl by Scrapy's signals and ends its attempt: done, or failed and why."""

import asyncio
import logging
from typing import Any

from scrapy import Request, signals
from scrapy.crawler import Crawler
from scrapy.exceptions import NotConfigured
from twisted.python.failure import Failure

from catlog_scrapy.attempt import Attempt, attempt_of
from catlog_scrapy.exceptions import AttemptLost
from catlog_scrapy.pipelines.check import Rejected
from catlog_scrapy.pipelines.store import ResultWriter, StorePipeline, persist
from catlog_scrapy.store import attempts as store

# What Scrapy logs as an error without sending a signal: a pipeline's close_spider, the scheduler,
# the reading of start(), its own bugs.
ENGINE_LOGGER = logging.getLogger("scrapy.core.engine")
HAS_A_SIGNAL = "Error while reading start items"
# Seconds to wait for an absent database with what a stopped crawl still has to say.
PATIENCE = 10.0


class LoadingExtension:
    """Counts what a crawl does and, when the spider has closed, says so to the store.

    It is the first witness of an attempt: it knows how the spider closed. A crawl that never
    opened is ended by whoever ran it.
    """

    def __init__(self, crawler: Crawler, attempt: Attempt) -> None:
        self.crawler = crawler
        self.attempt = attempt
        self.engine_errors = EngineErrors(crawler, attempt)
        self.opened = False

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> "LoadingExtension":
        attempt = attempt_of(crawler)
        if attempt is None:
            raise NotConfigured
        extension = cls(crawler, attempt)
        for name in (
            "spider_opened",
            "spider_error",
            "item_error",
            "item_dropped",
            "request_dropped",
        ):
            crawler.signals.connect(getattr(extension, name), getattr(signals, name))
        crawler.signals.connect(extension.spider_closed, signals.spider_closed)
        return extension

    def spider_opened(self) -> None:
        """From here on the attempt's end is this extension's to write."""
        self.opened = True
        self.engine_errors.listen()
        self.attempt.on_stop(self._close_spider)

    def _close_spider(self) -> None:
        reason = f"catlog_{self.attempt.stop_answer}"
        task = asyncio.ensure_future(self.crawler.engine.close_spider_async(reason=reason))
        # Closing twice, or a spider that has closed meanwhile, is no error.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    def spider_error(self, failure: Failure, response: Any) -> None:
        """A callback, an errback, `start()` or a spider middleware raised."""
        url = getattr(response, "url", None) or getattr(
            getattr(response, "request", None), "url", "start()"
        )
        self.attempt.raised(f"the spider, at {url}", failure.value or Exception(str(failure)))

    def item_error(self, failure: Failure) -> None:
        """A pipeline raised."""
        self.attempt.raised("a pipeline", failure.value or Exception(str(failure)))

    def request_dropped(self, request: Request) -> None:
        """A duplicate does not count, unless it is one of its own: redirected to where it was."""
        if request.url in request.meta.get("redirect_urls", ()):
            self.attempt.given_up("given_up", f"a redirect loop at {request.url}")

    async def item_dropped(self, response: Any, exception: Exception) -> None:
        """The project's own DropItem, or our check's."""
        if isinstance(exception, Rejected):
            await self._writer().reject(getattr(response, "url", None), exception)
        else:
            self.attempt.report.dropped += 1

    async def spider_closed(self, reason: str) -> None:
        """Send the last batch, whatever other components did on closing, and end the attempt."""
        self.engine_errors.cease()
        if not self.opened:
            return
        try:
            await self._writer().finish()
        except Exception as error:  # the boundary to the database: any reason ends the attempt
            self.attempt.raised("storing", error)
        report = self.attempt.report
        report.reason = reason
        stats = self.crawler.stats.get_stats()
        report.responses = stats.get("response_received_count", 0)
        report.stats = {name: value for name, value in stats.items() if name != "log_count"}
        try:
            self.attempt.outcome = await asyncio.to_thread(
                persist, self.attempt, self._end, patience=PATIENCE
            )
        except AttemptLost as lost:
            self.attempt.outcome, self.attempt.error = "lost", str(lost)

    def _end(self) -> str:
        attempt = self.attempt
        name, report = attempt.claim.attempt, attempt.report
        match attempt.stop_answer:
            case "release":
                return store.release(attempt.engine, name, report)
            case "timed_out":
                error = f"it ran past its time limit of {attempt.claim.seconds:g} s"
                return store.fail(attempt.engine, name, error, outcome="timed_out", report=report)
            case "cancel" | "lost":
                error = "stopped"
                return store.fail(attempt.engine, name, error, outcome="cancelled", report=report)
            case _:
                return store.complete(attempt.engine, name, report)

    def _writer(self) -> ResultWriter:
        pipeline = self.crawler.get_item_pipeline(StorePipeline)
        if pipeline is None:
            raise NotConfigured("the project removed catlog's StorePipeline")
        return pipeline.writer


class EngineErrors(logging.Handler):
    """Takes from the log what the engine swallows: there is no signal for it."""

    def __init__(self, crawler: Crawler, attempt: Attempt) -> None:
        super().__init__(logging.ERROR)
        self.crawler = crawler
        self.attempt = attempt

    def listen(self) -> None:
        """Start."""
        ENGINE_LOGGER.addHandler(self)

    def cease(self) -> None:
        """End."""
        ENGINE_LOGGER.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Note an error of this crawl's engine."""
        if getattr(record, "spider", None) is not self.crawler.spider:
            return
        if record.getMessage().startswith(HAS_A_SIGNAL):
            return
        error = record.exc_info[1] if record.exc_info else None
        self.attempt.raised(record.getMessage(), error or RuntimeError("no exception given"))
