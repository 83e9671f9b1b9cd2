"""Sees what became of each request and item, where Scrapy itself decides it."""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

from scrapy import Request, signals
from scrapy.crawler import Crawler
from scrapy.exceptions import CloseSpider, IgnoreRequest
from scrapy.spidermiddlewares.httperror import HttpError
from twisted.python.failure import Failure

from catlog_scrapy.crawl.attempt import Attempt

OFFSITE_PREFIX = "Filtered offsite request"
ROBOTS_PREFIX = "Forbidden by robots.txt"
# Where a request notes which ones it is a continuation of: a retry, a redirect.
CHAIN_META_KEY = "catlog_chain"


class OutcomeWatch:
    """Stands around the methods of one crawl's engine and scraper through which all must pass.

    Signals and logs do not tell all: an exception of `close_spider`, of a scheduler or of a log
    formatter sends no signal, and a middleware may swallow what an errback let pass. What counts
    as given up is the last word on what a spider asked for, after all retries and redirects:
    robots.txt, media files and `engine.download_async` never come this way, so they do not count;
    nor do duplicate, offsite and too deep requests, which were filtered by intent.
    """

    def __init__(self, crawler: Crawler, attempt: Attempt) -> None:
        self.crawler = crawler
        self.attempt = attempt

    def install(self) -> None:
        """Once the spider has opened, before anything is asked for."""
        engine: Any = self.crawler.engine
        scraper: Any = engine.scraper
        scraper.call_spider_async = self._around_the_spider(scraper.call_spider_async)
        scraper.start_itemproc_async = self._around_pipelines(scraper.start_itemproc_async)
        scraper.close_spider_async = self._recording(
            "closing a pipeline", scraper.close_spider_async
        )
        engine.close_spider_async = self._around_closing(engine.close_spider_async)
        engine.crawl = self._around_scheduling(engine.crawl)
        for name in ("request_reached_downloader", "request_dropped"):
            self.crawler.signals.connect(getattr(self, name), getattr(signals, name))

    def _around_the_spider(self, call: Callable[..., Any]) -> Callable[..., Any]:
        async def called(result: Any, request: Request) -> Any:
            if not isinstance(result, Failure):
                self.attempt.received += 1
                self.attempt.report.responses += 1
            try:
                output = await call(result, request)
            except Exception as error:
                self._record_spider_error(result, request, error)
                raise
            if isinstance(output, AsyncIterator):
                return self._record_async_errors_of(output, result, request)
            return self._record_errors_of(output, result, request)

        return called

    def _record_errors_of(
        self, output: Iterable[Any], result: Any, request: Request
    ) -> Iterator[Any]:
        try:
            for item in output:
                yield without_chain(item)
        except Exception as error:
            self._record_spider_error(result, request, error)
            raise

    async def _record_async_errors_of(
        self, output: AsyncIterator[Any], result: Any, request: Request
    ) -> AsyncIterator[Any]:
        try:
            async for item in output:
                yield without_chain(item)
        except Exception as error:
            self._record_spider_error(result, request, error)
            raise

    def _record_spider_error(self, result: Any, request: Request, error: Exception) -> None:
        """What a callback or errback raised; or what it was given, and let pass."""
        if isinstance(error, CloseSpider):
            return
        if not (isinstance(result, Failure) and error is result.value):
            self.attempt.record_error(f"the spider, at {request.url}", error)
            return
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

    def _around_pipelines(self, process: Callable[..., Any]) -> Callable[..., Any]:
        async def processed(item: Any, *, response: Any) -> None:
            scraper: Any = self.crawler.engine.scraper
            try:
                await process(item, response=response)
            except BaseException as error:
                # Scrapy catches exceptions; a cancellation, or a log formatter's, gets here.
                self.attempt.record_error("a pipeline", error)
                raise
            finally:
                # Scrapy looks whether it may close when a response is done, not when an item of
                # start() is: without this a crawl that is told to stop would wait for ever.
                slot = scraper.slot
                if slot is not None and slot.closing and not slot.closing.called:
                    scraper._check_if_closing()

        return processed

    def _around_closing(self, close: Callable[..., Any]) -> Callable[..., Any]:
        async def closed(*, reason: str = "cancelled") -> None:
            engine = self.crawler.engine
            scheduler: Any = engine.scheduler
            if engine.spider is not None and scheduler is not None:
                if reason == "finished" and not engine.spider_is_idle():
                    self.attempt.record_error(
                        "closing", RuntimeError("closed as 'finished' with work still to do")
                    )
                if hasattr(scheduler, "close"):
                    scheduler.close = self._recording_sync("closing the scheduler", scheduler.close)
            await close(reason=reason)

        return closed

    def _around_scheduling(self, crawl: Callable[[Request], None]) -> Callable[[Request], None]:
        return self._recording_sync("scheduling", crawl)

    def _recording(self, where: str, method: Callable[..., Any]) -> Callable[..., Any]:
        async def recording(*args: Any, **kwargs: Any) -> Any:
            try:
                return await method(*args, **kwargs)
            except Exception as error:
                self.attempt.record_error(where, error)
                raise

        return recording

    def _recording_sync(self, where: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def recording(*args: Any, **kwargs: Any) -> Any:
            try:
                return method(*args, **kwargs)
            except Exception as error:
                self.attempt.record_error(where, error)
                raise

        return recording

    def request_reached_downloader(self, request: Request) -> None:
        """Let what it becomes, redirected or retried, know where it comes from."""
        request.meta[CHAIN_META_KEY] = [
            *request.meta.get(CHAIN_META_KEY, ()),
            self._fingerprint(request),
        ]

    def request_dropped(self, request: Request) -> None:
        """A duplicate does not count, unless it is one of its own: then it was never answered."""
        if self._fingerprint(request) in request.meta.get(CHAIN_META_KEY, ()):
            self.attempt.record_failed_request(
                "failed_requests", f"a redirect loop at {request.url}"
            )

    def _fingerprint(self, request: Request) -> str:
        return self.crawler.request_fingerprinter.fingerprint(request).hex()


def without_chain(item: Any) -> Any:
    """What a spider yields is nobody's continuation, though it may be given a response's meta."""
    if isinstance(item, Request) and CHAIN_META_KEY in item.meta:
        del item.meta[CHAIN_META_KEY]
    return item
