"""Detection of redirect loops, which Scrapy drops as duplicate requests."""

from typing import Any

from scrapy import Request, signals
from scrapy.crawler import Crawler

from catlog_scrapy.crawl.attempt import Attempt

# Key in a request's meta for the fingerprints of the requests that it continues by redirect or
# retry.
CHAIN_META_KEY = "catlog_chain"


class RedirectLoops:
    """Counter of requests that were redirected to a former request of their own chain.

    The duplicate filter drops the last request of a loop, so the spider never gets an answer. Other
    duplicates are intended and do not count.
    """

    def __init__(self, crawler: Crawler, attempt: Attempt) -> None:
        self.crawler = crawler
        self.attempt = attempt

    def install(self) -> None:
        """Follow the requests of the crawl."""
        for name in ("request_reached_downloader", "request_dropped"):
            self.crawler.signals.connect(getattr(self, name), getattr(signals, name))

    def request_reached_downloader(self, request: Request) -> None:
        """Add the request to its chain, which redirects and retries inherit by their meta."""
        request.meta[CHAIN_META_KEY] = [
            *request.meta.get(CHAIN_META_KEY, ()),
            self._fingerprint(request),
        ]

    def request_dropped(self, request: Request) -> None:
        """Count a duplicate of a request in the same chain as failed."""
        if self._fingerprint(request) in request.meta.get(CHAIN_META_KEY, ()):
            self.attempt.record_failed_request(
                "failed_requests", f"a redirect loop at {request.url}"
            )

    def _fingerprint(self, request: Request) -> str:
        return self.crawler.request_fingerprinter.fingerprint(request).hex()


def without_chain(item: Any) -> Any:
    """Start a new chain for a request that a spider yields, even with the meta of a response."""
    if isinstance(item, Request) and CHAIN_META_KEY in item.meta:
        del item.meta[CHAIN_META_KEY]
    return item
