"""Sources that are a page in a browser, whose own responses are the data."""

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, ClassVar

from scrapy import Request, Spider
from scrapy.downloadermiddlewares.robotstxt import RobotsTxtMiddleware
from scrapy.exceptions import IgnoreRequest
from scrapy.http import Response
from scrapy.settings import BaseSettings


class BrowserResponses(Spider):
    """Opens `base_url`/`path`, clicks, and reads the JSON that the page itself asks for.

    `clicks` are, in order, the beginning of a class of an element (the rest of it is a hash) and
    its text. The data is every response whose URL has `wanted` in it, and not `unwanted`. The page
    is read when all it asked for has been answered and `quiet` seconds brought nothing new. To
    open it, each click, and then the answers, may take `within` seconds, all of it
    DOWNLOAD_TIMEOUT.

    robots.txt is obeyed for each request of the page too; those for images, media and fonts are
    never sent. A subclass says what the documents hold.
    """

    base_url: str = ""
    path: ClassVar[str] = ""
    clicks: ClassVar[Sequence[tuple[str, str]]] = ()
    wanted: ClassVar[str]
    unwanted: ClassVar[str] = ""
    within: ClassVar[float] = 30.0
    quiet: ClassVar[float] = 0.5

    @classmethod
    def update_settings(cls, settings: BaseSettings) -> None:
        """Give the crawls of this spider, and no others, the browser of the process."""
        super().update_settings(settings)
        for scheme in ("http", "https"):
            handler = "catlog_scrapy.browser.handler.BrowserHandler"
            settings["DOWNLOAD_HANDLERS"].set(scheme, handler, "spider")
        provider = "catlog_scrapy.browser.shared.SharedBrowserProvider"
        settings.set("PLAYWRIGHT_BROWSER_PROVIDER", provider, "spider")

    async def start(self) -> AsyncIterator[Any]:
        # Not above: it takes a while, also where no browser is needed.
        from scrapy_playwright.page import PageMethod

        from catlog_scrapy.browser.page_reading import PageReading, ReadingPlan

        reading = PageReading(
            ReadingPlan(
                self.clicks, self.wanted, self.unwanted, self.within, self.quiet, self._may_ask
            )
        )
        meta = {
            "playwright": True,
            "playwright_context_kwargs": {"service_workers": "block"},
            "playwright_page_init_callback": reading.begin,
            "playwright_page_goto_kwargs": {"timeout": self.within * 1000},
            "playwright_page_methods": [PageMethod(reading.read)],
        }
        yield Request(f"{self.base_url}/{self.path}", meta=meta)

    async def _may_ask(self, url: str) -> bool:
        robots = self.crawler.get_downloader_middleware(RobotsTxtMiddleware)
        try:
            if robots:
                await robots.process_request(Request(url))
        except IgnoreRequest:
            return False
        return True

    def parse(self, response: Response, **_: Any) -> Iterator[Any]:
        """Raises ValueError where the markup has changed, ConnectionError where data is missing."""
        if response.meta["fault"]:
            raise response.meta["fault"]
        yield from self.items(response.meta["documents"])

    def items(self, documents: list[Any]) -> Iterator[Any]:
        """The items that *documents*, in the order of their requests, hold, unvalidated."""
        raise NotImplementedError
