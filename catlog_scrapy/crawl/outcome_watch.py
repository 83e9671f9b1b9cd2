"""Observation of every request's and item's outcome, at the methods in which Scrapy decides it."""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from scrapy import Request
from scrapy.crawler import Crawler
from scrapy.exceptions import CloseSpider, IgnoreRequest
from scrapy.spidermiddlewares.httperror import HttpError
from twisted.python.failure import Failure

from catlog_scrapy.crawl.attempt import Attempt
from catlog_scrapy.crawl.failed_item import FailedItem, reset_failure, set_failure
from catlog_scrapy.crawl.redirect_loops import RedirectLoops, without_chain

# Beginnings of Scrapy's messages.
OFFSITE_PREFIX = "Filtered offsite request"
ROBOTS_PREFIX = "Forbidden by robots.txt"


class OutcomeWatch:
    """Wrapper of the methods of one crawl's engine and scraper that every request and item passes.

    Signals and logs are not enough: an exception in `close_spider`, a scheduler or a log formatter
    sends no signal, and a middleware may swallow a failure that the errback has let pass.

    A request counts as failed after all its retries and redirects. Not counted are requests of
    robots.txt, of media files and of `engine.download_async`, which never reach the scraper, and
    duplicate, offsite and too deep requests, which are filtered on purpose.
    """

    def __init__(self, crawler: Crawler, attempt: Attempt) -> None:
        self.crawler = crawler
        self.attempt = attempt
        self.redirect_loops = RedirectLoops(crawler, attempt)

    def install(self) -> None:
        """Wrap the methods, after the spider has opened and before any request."""
        engine: Any = self.crawler.engine
        scraper: Any = engine.scraper
        scraper.call_spider_async = self._around_spider(scraper.call_spider_async)
        scraper.start_itemproc_async = self._around_pipelines(scraper.start_itemproc_async)
        scraper.close_spider_async = self._around_pipelines_closing(scraper.close_spider_async)
        engine.close_spider_async = self._around_engine_closing(engine.close_spider_async)
        engine.crawl = self._recording("scheduling")(engine.crawl)
        self.redirect_loops.install()

    def _around_spider(self, call: Callable[..., Any]) -> Callable[..., Any]:
        async def called(result: Any, request: Request) -> Any:
            if not isinstance(result, Failure):
                self.attempt.received += 1
                self.attempt.report.responses += 1
            with self._recording_spider(result, request):
                output = await call(result, request)
            if isinstance(output, AsyncIterator):
                return self._aiterate(output, result, request)
            return self._iterate(output, result, request)

        return called

    def _iterate(self, output: Iterable[Any], result: Any, request: Request) -> Iterator[Any]:
        with self._recording_spider(result, request):
            for item in output:
                yield without_chain(item)

    async def _aiterate(
        self, output: AsyncIterator[Any], result: Any, request: Request
    ) -> AsyncIterator[Any]:
        with self._recording_spider(result, request):
            async for item in output:
                yield without_chain(item)

    def _around_pipelines(self, process: Callable[..., Any]) -> Callable[..., Any]:
        async def processed(item: Any, *, response: Any) -> None:
            scraper: Any = self.crawler.engine.scraper
            token = None
            if type(item) is FailedItem:
                item, token = item.item, set_failure(item.error)
            try:
                await process(item, response=response)
            except BaseException as error:
                # Scrapy catches most exceptions, but not a cancellation or a log formatter's error.
                self.attempt.record_error("a pipeline", error)
                raise
            finally:
                if token is not None:
                    reset_failure(token)
                # Scrapy checks whether it may close after each response, but not after an item of
                # start(). Without this check a stopped crawl would wait for ever.
                slot = scraper.slot
                if slot is not None and slot.closing and not slot.closing.called:
                    scraper._check_if_closing()

        return processed

    def _around_pipelines_closing(self, close: Callable[..., Any]) -> Callable[..., Any]:
        async def closed(*args: Any, **kwargs: Any) -> None:
            with self._recording("closing a pipeline"):
                await close(*args, **kwargs)

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
                    scheduler.close = self._recording("closing the scheduler")(scheduler.close)
            await close(reason=reason)

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
        if not (isinstance(result, Failure) and error is result.value):
            self.attempt.record_error(f"the spider, at {request.url}", error)
            return
        # The errback has let the failure of its request pass.
        text = str(error)
        if isinstance(error, HttpError):
            self.attempt.record_failed_request(
                "failed_requests", f"HTTP {error.response.status} for {request.url}"
            )
        elif isinstance(error, IgnoreRequest) and text.startswith(ROBOTS_PREFIX):
            self.attempt.record_failed_request(
                "blocked_by_robots", f"forbidden by robots.txt: {request.url}"
            )
        elif not (isinstance(error, IgnoreRequest) and text.startswith(OFFSITE_PREFIX)):
            self.attempt.record_failed_request(
                "failed_requests", f"{type(error).__name__}: {text} for {request.url}"
            )
