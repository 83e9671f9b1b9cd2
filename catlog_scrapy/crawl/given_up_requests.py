"""Detection of pages that a spider or a middleware gives up after its own retries."""

import sys
from types import FrameType
from typing import Any
from weakref import WeakSet

from scrapy import Request
from scrapy.crawler import Crawler
from scrapy.downloadermiddlewares.retry import get_retry_request
from scrapy.http import Response
from scrapy.http.request import NO_CALLBACK
from scrapy.statscollectors import StatsCollector

from catlog_scrapy.crawl.attempt import Attempt
from catlog_scrapy.crawl.truncated_response import TruncatedResponse


class GivenUpRequests:
    """Counter of requests for which `get_retry_request` has returned None.

    Scrapy only counts them in its statistics, as `retry/max_reached` or under another prefix. A
    spider that gives up a page has no data of the page. A middleware that gives up lets an error
    through, which counts by itself, or a page that it has called unusable.
    """

    def __init__(self, crawler: Crawler, attempt: Attempt) -> None:
        self.crawler = crawler
        self.attempt = attempt
        self.counted: WeakSet[Request] = WeakSet()
        self.by_middlewares: WeakSet[Request] = WeakSet()

    def install(self) -> None:
        """Watch the statistics that `get_retry_request` finds."""
        crawler: Any = self.crawler
        crawler.stats = WatchedStats(crawler.stats, self)

    def on_give_up(self, frame: FrameType) -> None:
        """Count the request for which the function of *frame* gives up."""
        # Spiders import the function itself, so it cannot be replaced.
        if frame.f_code is not get_retry_request.__code__ or frame.f_back is None:
            return
        request, reason = frame.f_locals["request"], frame.f_locals["reason"]
        engine: Any = self.crawler.engine
        if isinstance(reason, TruncatedResponse):
            return  # TruncationMiddleware counts its responses itself
        caller = frame.f_back.f_locals.get("self")
        if any(caller is middleware for middleware in engine.downloader.middleware.middlewares):
            self.by_middlewares.add(request)
        elif request.callback is not NO_CALLBACK:
            self._count(request, f"gave up {request.url}: {reason}")

    def on_response(self, request: Request, response: Response) -> None:
        """Count a page that a middleware has called unusable, and that reaches the spider."""
        if request in self.by_middlewares and response.status < 400:
            self._count(request, f"gave up retrying {request.url}")

    def _count(self, request: Request, reason: str) -> None:
        if request not in self.counted:
            self.counted.add(request)
            self.attempt.record_failed_request("failed_requests", reason)


class WatchedStats:
    """Statistics collector of a crawl that tells GivenUpRequests who gives up.

    Scrapy's collectors cache their own methods, so a method cannot be replaced.
    """

    def __init__(self, stats: StatsCollector, given_up: GivenUpRequests) -> None:
        self._stats = stats
        self._given_up = given_up

    def inc_value(self, key: str, *args: Any, **kwargs: Any) -> None:
        """Increase a statistic."""
        if key.endswith("/max_reached"):
            self._given_up.on_give_up(sys._getframe(1))
        self._stats.inc_value(key, *args, **kwargs)

    # Everything else is the collector's.
    def __getattr__(self, name: str) -> Any:
        return getattr(self._stats, name)
