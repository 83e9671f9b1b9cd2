"""Sources that need a browser: the data are the responses to the page's own requests."""

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, ClassVar

from scrapy import Request, Spider
from scrapy.downloadermiddlewares.robotstxt import RobotsTxtMiddleware
from scrapy.exceptions import IgnoreRequest
from scrapy.http import Response
from scrapy.settings import BaseSettings


class BrowserResponses(Spider):
    """Spider that opens `base_url`/`path`, clicks, and reads the JSON that the page requests.

    `clicks` lists elements in order: the prefix of a class name, whose rest is a hash, and the
    text. The data are all responses whose URL contains `wanted` and not `unwanted`. The page is
    complete when all requests have responses and `quiet` seconds have brought no new request.
    Opening the page, each click and the responses may take `within` seconds each, and
    DOWNLOAD_TIMEOUT in all.

    The page's own requests obey robots.txt, too. Requests for images, media and fonts are not sent.
    A subclass implements `items`.
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
        """Use the browser of the process in the crawls of this spider, and in no others."""
        super().update_settings(settings)
        for scheme in ("http", "https"):
            handler = "catlog_scrapy.browser.handler.BrowserHandler"
            settings["DOWNLOAD_HANDLERS"].set(scheme, handler, "spider")
        provider = "catlog_scrapy.browser.shared.SharedBrowserProvider"
        settings.set("PLAYWRIGHT_BROWSER_PROVIDER", provider, "spider")

    async def start(self) -> AsyncIterator[Any]:
        """Request the page in the browser."""
        # Imported here, because the imports are slow and other spiders need no browser.
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
        """Yield the items of the page.

        Raises ValueError if the markup has changed, and ConnectionError if responses are missing.
        """
        if response.meta["fault"]:
            raise response.meta["fault"]
        yield from self.items(response.meta["documents"])

    def items(self, documents: list[Any]) -> Iterator[Any]:
        """Yield the unvalidated items of *documents*, which are in the order of their requests."""
        raise NotImplementedError
