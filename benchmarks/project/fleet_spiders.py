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
    """Spider that yields one product after a request of the page *page* on the port *port*."""

    name = "visit"

    def __init__(self, port: str = "", page: str = "", **arguments: Any) -> None:
        super().__init__(**arguments)
        self.port, self.page = port, page
        self.url = f"http://127.0.0.1:{port}/{page}"
