"""Backpressure for the items of `start()`."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from scrapy import Request
from scrapy.crawler import Crawler

from catlog_scrapy.crawl.attempt import Attempt, running_attempt
from catlog_scrapy.crawl.cancellation import CANCELLATIONS, raise_cancellation

# Pause between two checks of full pipelines; Scrapy offers no event to wait for.
POLL_INTERVAL_S = 0.005


class StartBackpressureMiddleware:
    """Spider middleware that takes items from `start()` no faster than the pipelines process them.

    Scrapy limits the items of a callback to CONCURRENT_ITEMS at a time, but not those of `start()`:
    a million items would be in memory at once. Items of the fast path never reach Scrapy.
    """

    def __init__(self, crawler: Crawler, attempt: Attempt) -> None:
        self.crawler = crawler
        self.attempt = attempt
        self.limit = crawler.settings.getint("CONCURRENT_ITEMS")

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> "StartBackpressureMiddleware":
        """Make the middleware of a crawl."""
        return cls(crawler, running_attempt(crawler))

    async def process_start(self, start: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """Yield from *start* while the pipelines have room."""
        # Set by OutcomeExtension, which opens before the first item is asked for.
        process = self.attempt.process_outputs
        is_waiting = False
        try:
            async for item_or_request in process(start) if process else start:
                is_waiting = True
                yield item_or_request
                is_waiting = False
                if not isinstance(item_or_request, Request):
                    slot = self.crawler.engine.scraper.slot
                    while slot is not None and slot.itemproc_size >= self.limit:
                        await asyncio.sleep(POLL_INTERVAL_S)
        except CANCELLATIONS as error:
            raise_cancellation(error, is_waiting=is_waiting)
