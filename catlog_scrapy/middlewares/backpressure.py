"""Back-pressure for what `start()` yields."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from scrapy import Request
from scrapy.crawler import Crawler

# Seconds between two looks at pipelines that are full.
POLL_INTERVAL_S = 0.005


class StartBackpressureMiddleware:
    """Takes the next item from `start()` only while the pipelines keep up.

    Scrapy waits for the items of a callback, CONCURRENT_ITEMS at a time, but not for those of
    `start()`: without this a million of them would be in memory at once.
    """

    def __init__(self, crawler: Crawler) -> None:
        self.crawler = crawler
        self.limit = crawler.settings.getint("CONCURRENT_ITEMS")

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> "StartBackpressureMiddleware":
        return cls(crawler)

    async def process_start(self, start: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """Pass on what *start* yields, no faster than it is processed."""
        async for item_or_request in start:
            yield item_or_request
            if not isinstance(item_or_request, Request):
                slot = self.crawler.engine.scraper.slot
                while slot is not None and slot.itemproc_size >= self.limit:
                    await asyncio.sleep(POLL_INTERVAL_S)
