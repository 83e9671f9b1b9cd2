"""Backpressure for the items of `start()`."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from scrapy import Request
from scrapy.crawler import Crawler

# Pause between two checks of full pipelines; Scrapy offers no event to wait for.
POLL_INTERVAL_S = 0.005


class StartBackpressureMiddleware:
    """Spider middleware that takes items from `start()` no faster than the pipelines process them.

    Scrapy limits the items of a callback to CONCURRENT_ITEMS at a time, but not those of `start()`:
    a million items would be in memory at once.
    """

    def __init__(self, crawler: Crawler) -> None:
        self.crawler = crawler
        self.limit = crawler.settings.getint("CONCURRENT_ITEMS")

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> "StartBackpressureMiddleware":
        """Make the middleware of a crawl."""
        return cls(crawler)

    async def process_start(self, start: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """Yield from *start* while the pipelines have room."""
        async for item_or_request in start:
            yield item_or_request
            if not isinstance(item_or_request, Request):
                slot = self.crawler.engine.scraper.slot
                while slot is not None and slot.itemproc_size >= self.limit:
                    await asyncio.sleep(POLL_INTERVAL_S)
