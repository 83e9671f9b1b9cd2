"""One page, as the project's spiders would get it."""

from collections.abc import AsyncIterator
from typing import Any

from scrapy import Request, Spider
from scrapy.crawler import AsyncCrawlerProcess
from scrapy.http import Response
from scrapy.settings import Settings
from scrapy.utils.datatypes import SequenceExclude
from twisted.python.failure import Failure

from catlog_scrapy.exceptions import NotPossible

# The project's downloader, and nothing that takes items or listens; robots.txt is always obeyed.
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
    """Asks for `url`, and hands the response, or what failed, to `received`."""

    name = "page_fetcher"
    url: str
    received: list[Response | Failure]

    async def start(self) -> AsyncIterator[Any]:
        # Redirects are followed; of any other answer it is said what it was.
        meta = {"handle_httpstatus_list": SequenceExclude(range(300, 400))}
        yield Request(self.url, self.received.append, errback=self.received.append, meta=meta)


def fetch(settings: Settings, url: str) -> Response:
    """The page at *url*. It runs the reactor, so only once in a process.

    Raises NotPossible where there is none: no answer, forbidden by robots.txt, a status over 299.
    """
    settings = settings.copy()
    settings.setdict(FETCH_SETTINGS, "cmdline")
    received: list[Response | Failure] = []
    process = AsyncCrawlerProcess(settings)
    process.crawl(PageFetcher, url=url, received=received)
    process.start()
    if not received:
        raise NotPossible(f"{url} was not fetched: the crawl ended without an answer.")
    answer = received[0]
    if isinstance(answer, Failure):
        what = answer.getErrorMessage().removeprefix(": ")
        raise NotPossible(f"{url} was not fetched: {what}; --page takes a page that you saved.")
    if answer.status > 299:
        raise NotPossible(f"{url} was not fetched: it answers HTTP {answer.status}.")
    return answer
