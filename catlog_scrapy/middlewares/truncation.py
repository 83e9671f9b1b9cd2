"""Truncated responses: they are requested again, and then fail their request."""

import asyncio
from typing import Any
from urllib.parse import urlsplit

from scrapy import Request
from scrapy.crawler import Crawler
from scrapy.downloadermiddlewares.httpcache import HttpCacheMiddleware
from scrapy.downloadermiddlewares.httpcompression import HttpCompressionMiddleware
from scrapy.downloadermiddlewares.retry import get_retry_request
from scrapy.http import Response
from scrapy.http.request import NO_CALLBACK

from catlog_scrapy.crawl.attempt import running_attempt
from catlog_scrapy.crawl.compressed import DamagedStream, verify_body
from catlog_scrapy.crawl.ranges import find_range_fault
from catlog_scrapy.crawl.truncated_response import TruncatedResponse

# A larger body is verified in a thread, as the event loop would have to wait.
MAX_INLINE_BYTES = 1 << 20
# Statuses of successful responses that are not what the source has at the URL.
UNWANTED_STATUSES = {
    203: "HTTP 203, a proxy has changed the body",
    206: "HTTP 206, a part of the body, and no range was requested",
}
# Responses without a body of their own.
STATUSES_WITHOUT_BODY = (204, 205, 304)
WITHOUT_LENGTH = (
    "its end is unknown, because it has no Content-Length and ended with its connection; if the"
    " source always answers so, set tolerate.without_length"
)


class TruncationMiddleware:
    """Downloader middleware that looks for truncated responses.

    It is the nearest to the source, so it gets bodies as the source sent them, and a truncated body
    is never cached. Scrapy unpacks what it can of such a body, sets flags, and goes on. An
    operation that tolerates truncated responses gets what has arrived.
    """

    takes_cached = False

    def __init__(self, crawler: Crawler) -> None:
        self.crawler = crawler
        self.attempt = running_attempt(crawler)
        settings = crawler.settings
        self.max_bytes = settings.getint("DOWNLOAD_MAXSIZE")
        self.is_retrying = settings.getbool("RETRY_ENABLED")
        self.allows_all = settings.getbool("HTTPERROR_ALLOW_ALL")
        self.allowed = {int(status) for status in settings.getlist("HTTPERROR_ALLOWED_CODES")}

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> "TruncationMiddleware":
        """Make the middleware of a crawl."""
        return cls(crawler)

    def process_request(self, request: Request) -> None:
        """Let a body whose connection closes early arrive, with the flag `dataloss`.

        Scrapy would raise an error without the body, which a tolerance could not let through.
        """
        request.meta["download_fail_on_dataloss"] = False

    async def process_response(self, request: Request, response: Response) -> Response | Request:
        """Return a complete response, or a request to try again. Raises TruncatedResponse."""
        if ("cached" in response.flags) is not self.takes_cached:
            return response
        if response.status == 304:
            # Twisted adds a length of 0, which HTTPCACHE would write over that of the cached body.
            response.headers.pop(b"Content-Length", None)
        truncated = await self._find_fault(request, response)
        if truncated is None:
            return response
        if again := self._retry(request, truncated):
            return again
        # A file would be kept for ever, so it has to be complete.
        if self.attempt.tolerates(truncated.tolerance) and request.callback is not NO_CALLBACK:
            self.attempt.record_error("a response", truncated)
            return response
        raise truncated

    async def _find_fault(self, request: Request, response: Response) -> TruncatedResponse | None:
        # A component of the project has stopped the download on purpose.
        if "download_stopped" in response.flags or not self._is_read(request, response.status):
            return None
        fault = None
        if response.status in UNWANTED_STATUSES and not self._is_allowed(request, response.status):
            if response.status == 206 and b"Range" in request.headers:
                fault = find_range_fault(request, response)
            else:
                fault = UNWANTED_STATUSES[response.status]
        if fault is None and "dataloss" in response.flags:
            fault = "its connection closed before its end"
        elif fault is None and self.takes_cached and self._is_cut(response):
            fault = (
                "the cached body is shorter than its Content-Length; delete it from HTTPCACHE_DIR"
            )
        is_verified = False
        try:
            is_verified = fault is None and await self._verify(response)
        except DamagedStream as error:
            fault = str(error)
        if fault is not None:
            return TruncatedResponse(response.url, fault)
        if "partial" in response.flags and not is_verified and not is_robots_txt(request):
            return TruncatedResponse(response.url, WITHOUT_LENGTH, "without_length")
        return None

    async def _verify(self, response: Response) -> bool:
        """Return whether the body marks its own end. Raises DamagedStream."""
        codings = codings_of(response)
        body = response.body
        if response.status == 206:  # a range is a piece of a compressed stream
            return False
        if not body and response.status != 200:
            return False
        if len(body) <= MAX_INLINE_BYTES:
            return verify_body(body, codings, self.max_bytes)
        return await asyncio.to_thread(verify_body, body, codings, self.max_bytes)

    def _is_cut(self, response: Response) -> bool:
        """Return whether a cached body is shorter than its Content-Length."""
        middlewares: Any = self.crawler.engine.downloader.middleware.middlewares
        order = [type(middleware) for middleware in middlewares]
        caches = [at for at, cls in enumerate(order) if issubclass(cls, HttpCacheMiddleware)]
        unpackers = [
            at for at, cls in enumerate(order) if issubclass(cls, HttpCompressionMiddleware)
        ]
        # Such a cache holds unpacked bodies with the lengths of the packed ones.
        if caches and unpackers and min(caches) < max(unpackers):
            return False
        length = response.headers.get(b"Content-Length") or b""
        return length.isdigit() and len(response.body) < int(length)

    def _is_read(self, request: Request, status: int) -> bool:
        """Return whether the body of a response with this status reaches the spider."""
        if request.method == "HEAD" or status in STATUSES_WITHOUT_BODY:
            return False
        return 200 <= status < 300 or self._is_allowed(request, status)

    def _is_allowed(self, request: Request, status: int) -> bool:
        """Return whether the spider or its settings name *status*, as for HttpErrorMiddleware."""
        listed = request.meta.get("handle_httpstatus_list")
        if listed is None:
            listed = getattr(self.crawler.spider, "handle_httpstatus_list", self.allowed)
        everything = self.allows_all or request.meta.get("handle_httpstatus_all", False)
        return bool(everything) or status in (listed or ())

    def _retry(self, request: Request, truncated: TruncatedResponse) -> Request | None:
        """Return a request to try again, unless another answer is not to be expected."""
        is_final = truncated.tolerance == "without_length" or self.takes_cached
        if is_final or not self.is_retrying or request.meta.get("dont_retry"):
            return None
        spider = self.crawler.spider
        assert spider is not None
        return get_retry_request(request, spider=spider, reason=truncated)


class CachedTruncationMiddleware(TruncationMiddleware):
    """TruncationMiddleware behind HTTPCACHE, for the responses that the cache returns.

    The cache also returns them when the source has answered that they are still valid.
    """

    takes_cached = True


def codings_of(response: Response) -> list[str]:
    """Return the content codings of a response, without those that do not change the body.

    Some servers add `identity`, an empty element or a parameter, which RFC 9110 (8.4) excludes.
    """
    codings = [
        coding.partition(";")[0].strip().lower()
        for header in response.headers.getlist(b"Content-Encoding")
        for coding in header.decode("latin-1").split(",")
    ]
    return [coding for coding in codings if coding not in ("", "identity")]


def is_robots_txt(request: Request) -> bool:
    """Return whether Scrapy requests a robots.txt, which need not be complete (RFC 9309, 2.5)."""
    return request.callback is NO_CALLBACK and urlsplit(request.url).path == "/robots.txt"
