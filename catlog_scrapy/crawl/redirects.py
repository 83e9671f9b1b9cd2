"""Detection of requests that Scrapy drops without a word after a redirect."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from scrapy import Request, signals
from scrapy.crawler import Crawler

from catlog_scrapy.crawl.attempt import Attempt

# Key in a request's meta for the fingerprints of the requests that it continues by redirect or
# retry.
CHAIN_META_KEY = "catlog_chain"


class Redirects:
    """Counter of requests that were dropped because of a redirect, so the spider gets no answer.

    A redirect may lead to a former request of its own chain, to a URL that another request had, or
    to a host that `allowed_domains` lacks. Duplicate and offsite requests that the spider itself
    yields are dropped on purpose and do not count.
    """

    def __init__(self, crawler: Crawler, attempt: Attempt) -> None:
        self.crawler = crawler
        self.attempt = attempt
        self.enqueued: Request | None = None

    def install(self) -> None:
        """Follow the requests of the crawl."""
        for name in ("request_reached_downloader", "request_dropped"):
            self.crawler.signals.connect(getattr(self, name), getattr(signals, name))
        engine: Any = self.crawler.engine
        engine.scheduler.enqueue_request = self._around_enqueuing(engine.scheduler.enqueue_request)
        engine.crawl = self._around_crawl(engine.crawl)

    def request_reached_downloader(self, request: Request) -> None:
        """Add the request to its chain, which redirects and retries inherit by their meta."""
        request.meta[CHAIN_META_KEY] = [
            *request.meta.get(CHAIN_META_KEY, ()),
            self._fingerprint(request),
        ]

    def request_dropped(self, request: Request) -> None:
        """Count a duplicate that became one by a redirect."""
        if not is_continued(request):
            return
        if self._fingerprint(request) in request.meta[CHAIN_META_KEY]:
            self._count(f"a redirect loop at {request.url}")
        elif (first := first_url(request)) and not are_spellings(first, request.url):
            self._count(f"a redirect of {first} to {request.url}, which another request had")

    def _around_enqueuing(self, enqueue: Callable[[Request], bool]) -> Callable[[Request], bool]:
        def enqueue_request(request: Request) -> bool:
            self.enqueued = request
            return enqueue(request)

        return enqueue_request

    def _around_crawl(self, crawl: Callable[[Request], None]) -> Callable[[Request], None]:
        """Count a redirect that Scrapy does not schedule: of an offsite request it sends no signal.

        A component of the project may refuse a request, too, by IgnoreRequest.
        """

        def crawled(request: Request) -> None:
            self.enqueued = None
            crawl(request)
            if self.enqueued is not request and is_continued(request):
                self._count(f"a redirect of {first_url(request)} to {request.url}, filtered")

        return crawled

    def _count(self, reason: str) -> None:
        self.attempt.record_failed_request("failed_requests", reason)

    def _fingerprint(self, request: Request) -> str:
        return self.crawler.request_fingerprinter.fingerprint(request).hex()


def is_continued(request: Request) -> bool:
    """Return whether the request continues another one, by a redirect or a retry."""
    return bool(request.meta.get(CHAIN_META_KEY))


def first_url(request: Request) -> str:
    """Return the URL that the spider requested."""
    redirected: list[str] = request.meta.get("redirect_urls") or [request.url]
    return redirected[0]


def are_spellings(first: str, second: str) -> bool:
    """Return whether two URLs are ways to write one: both links occur on the pages of many sites.

    >>> are_spellings("http://shop.example/a", "https://www.shop.example/a/")
    True
    >>> are_spellings("http://shop.example/a", "https://shop.example/login")
    False
    """
    one, other = (
        ((url.hostname or "").removeprefix("www."), url.path.rstrip("/"), url.query)
        for url in (urlsplit(first), urlsplit(second))
    )
    return one == other


def without_chain(item: Any) -> Any:
    """Start a new chain for a request that a spider yields, even with the meta of a response."""
    if isinstance(item, Request) and CHAIN_META_KEY in item.meta:
        del item.meta[CHAIN_META_KEY]
    return item
