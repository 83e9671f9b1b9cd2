"""Outcome of a crawl: records Scrapy's signals, and ends the attempt when the spider closes."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from pydispatch import dispatcher
from scrapy import signals
from scrapy.crawler import Crawler
from scrapy.exceptions import NotConfigured
from twisted.python.failure import Failure

from catlog_scrapy.crawl.attempt import Attempt, attempt_of
from catlog_scrapy.crawl.background_errors import BackgroundErrors
from catlog_scrapy.crawl.background_hooks import install_hooks
from catlog_scrapy.crawl.downloads import Downloads
from catlog_scrapy.crawl.log_faults import report_faults_once
from catlog_scrapy.crawl.outcome_watch import OutcomeWatch
from catlog_scrapy.crawl.permanent_errors import is_permanent
from catlog_scrapy.exceptions import AttemptLost
from catlog_scrapy.pipelines.fast_path import FastPath
from catlog_scrapy.pipelines.store import ResultWriter, StorePipeline, persist_in_thread
from catlog_scrapy.pipelines.validate import Rejected
from catlog_scrapy.records.yields import Batch
from catlog_scrapy.store.queue.attempts import complete

logger = logging.getLogger(__name__)

# Scrapy logs here what a signal handler raises.
SIGNAL_LOGGER = logging.getLogger("scrapy.utils.signal")
# Time for a stopped crawl to store its outcome while the database is unavailable.
DATABASE_GRACE_S = 10.0


class OutcomeExtension:
    """Extension that counts a crawl's events and ends its attempt when the spider has closed.

    The extension is the attempt's reporter, as it knows the spider's close reason. The supervisor
    outside, worker or node, ends an attempt whose spider never opened.
    """

    def __init__(self, crawler: Crawler, attempt: Attempt) -> None:
        self.crawler = crawler
        self.attempt = attempt
        self.watch = OutcomeWatch(crawler, attempt)
        self.downloads = Downloads(crawler, attempt)
        self.fast_path = FastPath(crawler, attempt)
        self.background = BackgroundErrors(crawler, attempt)
        self.signal_errors = SignalErrorHandler(crawler, attempt)

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> "OutcomeExtension":
        """Make the extension. Raises NotConfigured for a crawl without an attempt."""
        attempt = attempt_of(crawler)
        if attempt is None:
            raise NotConfigured
        extension = cls(crawler, attempt)
        for name in ("spider_opened", "spider_error", "item_error", "item_dropped"):
            crawler.signals.connect(getattr(extension, name), getattr(signals, name))
        return extension

    def spider_opened(self) -> None:
        """Take over the attempt's end, and install the wrappers around Scrapy's methods."""
        self.attempt.is_open = True
        for handler in logging.root.handlers:  # Scrapy has made its own by now
            report_faults_once(handler)
        self.watch.install()
        self.downloads.install()
        self.fast_path.install()
        if not self.fast_path.is_before_middlewares:
            self.watch.guard_outputs()
        self.background.install()
        install_hooks(asyncio.get_running_loop())
        manager: Any = self.crawler.signals
        manager.send_catch_log_async = self._around_signals(manager.send_catch_log_async)
        SIGNAL_LOGGER.addHandler(self.signal_errors)
        self.attempt.on_stop(self._close_spider)

    def _around_signals(self, send: Callable[..., Any]) -> Callable[..., Any]:
        """End the attempt when all handlers of `spider_closed` have ended, and the last to raise.

        Scrapy runs the handlers at once, so a handler of the signal would not see what an async
        `closed()` raises after an await.
        """

        async def sent(signal: Any = dispatcher.Any, **named: Any) -> Any:
            results = await send(signal, **named)
            for result in results:
                if isinstance(result, BaseException):  # a cancellation, which Scrapy does not log
                    self.attempt.record_error("a signal handler", result)
            if signal is signals.spider_closed:
                await self._end_crawl(named["reason"])
            return results

        return sent

    def _close_spider(self) -> None:
        logger.warning("the crawl has to stop: %s", self.attempt.stop_reason)
        engine: Any = self.crawler.engine
        reason = f"catlog_{self.attempt.stop_code}"
        task = asyncio.ensure_future(engine.close_spider_async(reason=reason))
        # Closing raises if the spider has closed in the meantime; ignore that.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        self.downloads.cancel()

    def spider_error(self, failure: Failure, response: Any) -> None:
        """Record an exception of a callback, an errback, `start()` or a spider middleware."""
        url = getattr(response, "url", None) or getattr(
            getattr(response, "request", None), "url", "start()"
        )
        error = failure.value or Exception(str(failure))
        # start() has only the arguments, until it has requested or itself downloaded something.
        requested = self.crawler.stats.get_value("scheduler/enqueued") or self.attempt.received
        if response is None and not requested:
            self.attempt.report.is_permanent = is_permanent(error)
        self.attempt.record_error(f"the spider, at {url}", error)

    def item_error(self, failure: Failure) -> None:
        """Record an exception of a pipeline."""
        self.attempt.record_error("a pipeline", failure.value or Exception(str(failure)))

    async def item_dropped(self, item: Any, response: Any, exception: Exception) -> None:
        """Store an item that validation rejected; count the records that the project dropped."""
        if isinstance(exception, Rejected):
            await self._writer().reject(getattr(response, "url", None), exception)
        else:
            self.attempt.report.dropped += len(item.items) if isinstance(item, Batch) else 1

    async def _end_crawl(self, reason: str) -> None:
        """Send the last batch and end the attempt, even if other components failed to close."""
        self.background.collect()
        try:
            await self._writer().finish()
        except Exception as error:  # the boundary to the database: any reason ends the attempt
            self.attempt.record_error("storing", error)
        report = self.attempt.report
        report.reason = reason
        stats = self.crawler.stats.get_stats()
        for _ in range(stats.get("urllength/request_ignored_count", 0)):
            self.attempt.record_failed_request(
                "failed_requests", "a URL longer than URLLENGTH_LIMIT"
            )
        report.stats = {name: value for name, value in stats.items() if name != "log_count"}
        try:
            self.attempt.outcome = await persist_in_thread(
                self.attempt, self._end, grace_s=DATABASE_GRACE_S
            )
        except AttemptLost as lost:
            self.attempt.outcome, self.attempt.error = "lost", str(lost)
        finally:
            SIGNAL_LOGGER.removeHandler(self.signal_errors)

    def _end(self) -> str:
        attempt = self.attempt
        if attempt.stop_code:
            return attempt.end_stopped()
        claim = attempt.claim
        return complete(attempt.engine, claim.attempt, attempt.report, claim.limits)

    def _writer(self) -> ResultWriter:
        pipeline = self.crawler.get_item_pipeline(StorePipeline)
        if pipeline is None:
            raise NotConfigured("the project's settings remove catlog's StorePipeline; restore it")
        return pipeline.writer


class SignalErrorHandler(logging.Handler):
    """Log handler that records the exceptions of signal handlers, which Scrapy only logs.

    A failed handler of `spider_idle` may have had more requests to schedule.
    """

    def __init__(self, crawler: Crawler, attempt: Attempt) -> None:
        super().__init__(logging.ERROR)
        self.crawler = crawler
        self.attempt = attempt

    def emit(self, record: logging.LogRecord) -> None:
        """Record an exception that a handler of this crawl has raised."""
        if getattr(record, "spider", None) is self.crawler.spider and record.exc_info:
            self.attempt.record_error(record.getMessage(), record.exc_info[1] or RuntimeError())
