"""Spiders for catlog nodes and stock scrapyd; they import nothing of catlog."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

from scrapy import Request, Spider
from scrapy.http import Response

from benchmarks.rows import product


class One(Spider):
    """Spider that yields one product without a network."""

    name = "one"
    url = "data:text/plain,nothing"

    async def start(self) -> AsyncIterator[Any]:
        yield Request(self.url)

    def parse(self, response: Response, **_: Any) -> Iterator[dict[str, Any]]:
        yield product(1)


class Visit(One):
    """Spider that yields one product after a request of its argument `url`."""

    name = "visit"
