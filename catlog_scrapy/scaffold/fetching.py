"""Download of a page as the project's spiders would get it."""

from collections.abc import AsyncIterator
from typing import Any

from scrapy import Request, Spider
from scrapy.crawler import AsyncCrawlerProcess
from scrapy.http import Response
from scrapy.settings import Settings
from scrapy.utils.datatypes import SequenceExclude
from twisted.python.failure import Failure

from catlog_scrapy.exceptions import NotPossible

# Keep the project's downloader, without pipelines and listening services. robots.txt is always
# obeyed.
FETCH_SETTINGS: dict[str, Any] = {
    "ROBOTSTXT_OBEY": True,
    "ITEM_PIPELINES": {},
    "FEEDS": {},
    "JOBDIR": None,
    "TELNETCONSOLE_ENABLED": False,
    "REMOTE_CONTROL_ENABLED": False,
    "LOG_ENABLED": False,
}


class PageFetcher(Spider):
    """Spider that appends the response of `url`, or the failure, to `received`."""

    name = "page_fetcher"
    url: str
    received: list[Response | Failure]

    async def start(self) -> AsyncIterator[Any]:
        """Request the page."""
        # Redirects are followed. Other statuses are received, for the error message.
        meta = {"handle_httpstatus_list": SequenceExclude(range(300, 400))}
        yield Request(self.url, self.received.append, errback=self.received.append, meta=meta)


def fetch(settings: Settings, url: str) -> Response:
    """Fetch the page at *url*. This runs the reactor, which works once in a process.

    Raises NotPossible for no response, a page forbidden by robots.txt, and a status above 299.
    """
    settings = settings.copy()
    settings.setdict(FETCH_SETTINGS, "cmdline")
    received: list[Response | Failure] = []
    process = AsyncCrawlerProcess(settings)
    process.crawl(PageFetcher, url=url, received=received)
    process.start()
    if not received:
        raise NotPossible(f"{url} was not fetched: the crawl ended without a response; try again.")
    response = received[0]
    if isinstance(response, Failure):
        error = response.getErrorMessage().removeprefix(": ")
        raise NotPossible(f"{url} was not fetched: {error}; use --page for a page that you saved.")
    if response.status > 299:
        raise NotPossible(
            f"{url} was not fetched: the status is {response.status}; correct the URL."
        )
    return response
