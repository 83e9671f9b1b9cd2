"""A source that says when to come back is asked again then, and not before."""

import datetime as dt
import time
from email.utils import parsedate_to_datetime
from typing import Any

from scrapy import Request
from scrapy.crawler import Crawler
from scrapy.http import Response
from scrapy.http.request import NO_CALLBACK
from scrapy.utils.asyncio import call_later

from catlog_scrapy.crawl.attempt import running_attempt

# RFC 9110, 10.2.3: where Retry-After says how long the service is expected to be unavailable; 429
# is RFC 6585, 4.
STATUSES = (429, 503)


class RetryAfterMiddleware:
    """Holds back all requests to a host that asks for time; Scrapy's retry then repeats the one.

    A host that asks for more than CATLOG_RETRY_AFTER seconds ends the attempt, and the next one
    begins when it says, or after a day.
    """

    def __init__(self, crawler: Crawler) -> None:
        self.crawler = crawler
        self.report = running_attempt(crawler).report
        stall = running_attempt(crawler).claim.limits.get("stall_timeout")
        longest = crawler.settings.getfloat("CATLOG_RETRY_AFTER")
        self.longest = min(longest, stall) if stall else longest
        self.until: dict[str, float] = {}

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> "RetryAfterMiddleware":
        return cls(crawler)

    def process_response(self, request: Request, response: Response) -> Response:
        """Do what it asks for."""
        said = response.headers.get(b"Retry-After")
        seconds = seconds_of(said, response.headers.get(b"Date")) if said else None
        host = request.meta.get("download_slot")  # a cached response came from none
        if response.status not in STATUSES or seconds is None or host is None:
            return response
        if seconds > self.longest:
            # Not again in this attempt.
            request.meta["dont_retry"] = True
            # An image, or robots.txt, costs no attempt.
            if request.callback is not NO_CALLBACK:
                self.report.retry_after = max(self.report.retry_after, seconds)
        else:
            self._hold_back(host, seconds)
        return response

    def _hold_back(self, host: str, seconds: float) -> None:
        # The downloader's queue is the last place that a request waits in; it has a way to wait
        # for its delay, and for nothing else.
        downloader: Any = self.crawler.engine.downloader
        slot = downloader.slots[host]
        until = time.monotonic() + seconds
        if until > self.until.get(host, 0.0):
            self.until[host] = until
            slot.close()
            slot.latercall = call_later(seconds, downloader._latercall, slot)


def seconds_of(said: bytes, date: bytes | None) -> float | None:
    """What Retry-After asks for: seconds, or an HTTP date, by the clock that wrote *date*.

    None where it says neither.
    """
    text = said.decode("latin-1").strip()
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        now = parsedate_to_datetime(date.decode("latin-1")) if date else dt.datetime.now(dt.UTC)
        return max(0.0, (parsedate_to_datetime(text) - now).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None
