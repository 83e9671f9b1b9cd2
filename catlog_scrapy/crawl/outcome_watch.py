"""Observation of every request's and item's outcome, at the methods in which Scrapy decides it."""

import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from scrapy import Request
from scrapy.crawler import Crawler
from scrapy.exceptions import CloseSpider, IgnoreRequest
from scrapy.spidermiddlewares.httperror import HttpError
from scrapy.utils.asyncgen import as_async_generator
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from catlog_scrapy.crawl.attempt import Attempt
from catlog_scrapy.crawl.cancellation import (
    CANCELLATIONS,
    aiterate,
    await_converted,
    converted_cancellations,
    is_cancelled,
    raise_cancellation,
)
from catlog_scrapy.crawl.failed_item import FailedItem, failing
from catlog_scrapy.crawl.given_up_requests import GivenUpRequests
from catlog_scrapy.crawl.item_order import TicketedItem, ordered
from catlog_scrapy.crawl.redirects import Redirects, is_continued, without_chain
from catlog_scrapy.crawl.truncated_response import TruncatedResponse

logger = logging.getLogger(__name__)

# Beginnings of Scrapy's messages.
OFFSITE_PREFIX = "Filtered offsite request"
ROBOTS_PREFIX = "Forbidden by robots.txt"


class OutcomeWatch:
    """Wrapper of the methods of one crawl's engine and scraper that every request and item passes.

    Signals and logs are not enough: an exception in `close_spider`, a scheduler or a log formatter
    sends no signal, and a middleware may swallow a failure that the errback has let pass.

    A request counts as failed after all its retries and redirects. Not counted are requests of
    robots.txt, of media files and of `engine.download_async`, which never reach the scraper, and
    duplicate, offsite and too deep requests, which are filtered on purpose: see Redirects for those
    that a redirect has made so.
    """

    def __init__(self, crawler: Crawler, attempt: Attempt) -> None:
        self.crawler = crawler
        self.attempt = attempt
        self.redirects = Redirects(crawler, attempt)
        self.given_up = GivenUpRequests(crawler, attempt)

    def install(self) -> None:
        """Wrap the methods, after the spider has opened and before any request."""
        engine: Any = self.crawler.engine
        scraper: Any = engine.scraper
        scraper._scrape = self._around_scrape(scraper._scrape)
        scraper.call_spider_async = self._around_spider(scraper.call_spider_async)
        scraper.start_itemproc_async = self._around_pipelines(scraper.start_itemproc_async)
        scraper.close_spider_async = self._around_pipelines_closing(scraper.close_spider_async)
        engine.close_spider_async = self._around_engine_closing(engine.close_spider_async)
        engine.crawl = self._recording("scheduling")(engine.crawl)
        self.redirects.install()
        self.given_up.install()

    def guard_outputs(self) -> None:
        """Convert cancellations that spider middlewares raise; to be called after all wrappers."""
        scraper: Any = self.crawler.engine.scraper
        handle = scraper.handle_spider_output_async

        async def handled(result: Any, request: Request, response: Any) -> None:
            await handle(aiterate(as_async_generator(result)), request, response)

        scraper.handle_spider_output_async = handled

    def _around_scrape(self, scrape: Callable[..., Any]) -> Callable[..., Any]:
        """Record a cancellation that a spider middleware raises, and that Scrapy would wait for."""

        async def scraped(result: Any, request: Request) -> None:
            with self._recording("processing a response"), converted_cancellations():
                await scrape(result, request)

        return scraped

    def _around_spider(self, call: Callable[..., Any]) -> Callable[..., Any]:
        async def called(result: Any, request: Request) -> Any:
            if not isinstance(result, Failure):
                self.attempt.received += 1
                self.attempt.report.responses += 1
                self.given_up.on_response(request, result)
            with self._recording_spider(result, request), converted_cancellations():
                output = await call(result, request)
            if isinstance(output, AsyncIterator):
                return self._aiterate(output, result, request)
            return self._iterate(output, result, request)

        return called

    def _iterate(self, output: Iterable[Any], result: Any, request: Request) -> Iterator[Any]:
        with self._recording_spider(result, request):
            is_waiting = False
            try:
                for item in output:
                    is_waiting = True
                    yield without_chain(item)
                    is_waiting = False
            except CANCELLATIONS as error:
                raise_cancellation(error, is_waiting=is_waiting)

    async def _aiterate(
        self, output: AsyncIterator[Any], result: Any, request: Request
    ) -> AsyncIterator[Any]:
        with self._recording_spider(result, request):
            # Without `aiterate`, as each layer costs time for each item.
            is_waiting = False
            try:
                async for item in output:
                    is_waiting = True
                    yield without_chain(item)
                    is_waiting = False
            except CANCELLATIONS as error:
                raise_cancellation(error, is_waiting=is_waiting)

    def _around_pipelines(self, process: Callable[..., Any]) -> Callable[..., Any]:
        async def processed(item: Any, *, response: Any) -> None:
            scraper: Any = self.crawler.engine.scraper
            try:
                with await self._place(item) as inner:
                    await process(inner, response=response)
            except BaseException as error:
                # Scrapy catches most exceptions, but not a cancellation or a log formatter's error.
                self.attempt.record_error("a pipeline", error)
                # The task goes on with other items: without it the crawl would never end.
                if is_cancelled() or not isinstance(error, (Exception, *CANCELLATIONS)):
                    raise
                logger.exception("an item was not processed")
            finally:
                # Scrapy checks whether it may close after each response, but not after an item of
                # start(). Without this check a stopped crawl would wait for ever.
                slot = scraper.slot
                if slot is not None and slot.closing and not slot.closing.called:
                    scraper._check_if_closing()

        return processed

    async def _place(self, item: Any) -> AbstractContextManager[Any]:
        """Return the context in which an item is processed, which yields the spider's item."""
        if type(item) is FailedItem:
            return failing(item)
        order = self.attempt.order
        if type(item) is TicketedItem or order is None:
            return ordered(order, item)
        if not order.gate.is_open:
            await order.gate.wait()
        return ordered(order, TicketedItem(item, order.open()))

    def _around_pipelines_closing(self, close: Callable[..., Any]) -> Callable[..., Any]:
        async def closed(*args: Any, **kwargs: Any) -> None:
            with self._recording("closing a pipeline"):
                await await_converted(close(*args, **kwargs))

        return closed

    def _around_engine_closing(self, close: Callable[..., Any]) -> Callable[..., Any]:
        async def closed(*, reason: str = "cancelled") -> None:
            engine = self.crawler.engine
            scheduler: Any = engine.scheduler
            if engine.spider is not None and scheduler is not None:
                if reason == "finished" and not engine.spider_is_idle():
                    self.attempt.record_error(
                        "closing", RuntimeError("closed as 'finished' with work still to do")
                    )
                if hasattr(scheduler, "close"):
                    scheduler.close = self._around_scheduler_closing(scheduler.close)
            await close(reason=reason)

        return closed

    def _around_scheduler_closing(self, close: Callable[..., Any]) -> Callable[..., Any]:
        def closed(reason: str) -> Any:
            with self._recording("closing the scheduler"), converted_cancellations():
                closing = close(reason)
            return None if closing is None else Deferred.fromCoroutine(finished(closing))

        async def finished(closing: Any) -> None:
            with self._recording("closing the scheduler"), converted_cancellations():
                await closing

        return closed

    @contextmanager
    def _recording(self, where: str) -> Iterator[None]:
        """Record an exception in *where*, and let it pass; also a decorator of a function."""
        try:
            yield
        except Exception as error:
            self.attempt.record_error(where, error)
            raise

    @contextmanager
    def _recording_spider(self, result: Any, request: Request) -> Iterator[None]:
        """Record an exception of a callback or errback that got *result*, and let it pass."""
        try:
            yield
        except Exception as error:
            self._record_spider_error(result, request, error)
            raise

    def _record_spider_error(self, result: Any, request: Request, error: Exception) -> None:
        if isinstance(error, CloseSpider):
            return
        is_passed_on = isinstance(result, Failure) and error is result.value
        if not is_passed_on or isinstance(error, TruncatedResponse):
            self.attempt.record_error(f"the spider, at {request.url}", error)
            return
        if request in self.given_up.counted:
            return
        # The errback has let the failure of its request pass.
        text = str(error)
        if isinstance(error, HttpError):
            self.attempt.record_failed_request(
                "failed_requests", f"HTTP {error.response.status} for {request.url}"
            )
        elif isinstance(error, IgnoreRequest) and text.startswith(ROBOTS_PREFIX):
            reason = f"forbidden{text.removeprefix('Forbidden')}: {request.url}"
            self.attempt.record_failed_request("blocked_by_robots", reason)
        elif is_continued(request) or not (
            isinstance(error, IgnoreRequest) and text.startswith(OFFSITE_PREFIX)
        ):
            self.attempt.record_failed_request(
                "failed_requests", f"{type(error).__name__}: {text} for {request.url}"
            )
