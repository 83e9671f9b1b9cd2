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
RETRY_AFTER_STATUSES = (429, 503)


class RetryAfterMiddleware:
    """Holds back all requests to a host that asks for time; Scrapy's retry then repeats the one.

    A host that asks for more than CATLOG_RETRY_AFTER seconds ends the attempt, and the next one
    begins when it says, or after a day.
    """

    def __init__(self, crawler: Crawler) -> None:
        self.crawler = crawler
        self.report = running_attempt(crawler).report
        stall = running_attempt(crawler).claim.limits.get("stall_timeout")
        max_wait_s = crawler.settings.getfloat("CATLOG_RETRY_AFTER")
        self.max_wait_s = min(max_wait_s, stall) if stall else max_wait_s
        self.resume_at: dict[str, float] = {}

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> "RetryAfterMiddleware":
        return cls(crawler)

    def process_response(self, request: Request, response: Response) -> Response:
        """Do what it asks for."""
        header = response.headers.get(b"Retry-After")
        seconds = parse_retry_after(header, response.headers.get(b"Date")) if header else None
        host = request.meta.get("download_slot")  # a cached response came from none
        if response.status not in RETRY_AFTER_STATUSES or seconds is None or host is None:
            return response
        if seconds > self.max_wait_s:
            # Not again in this attempt.
            request.meta["dont_retry"] = True
            # An image, or robots.txt, costs no attempt.
            if request.callback is not NO_CALLBACK:
                self.report.retry_after = max(self.report.retry_after, seconds)
        else:
            self._pause_slot(host, seconds)
        return response

    def _pause_slot(self, host: str, seconds: float) -> None:
        # The downloader's queue is the last place that a request waits in; it has a way to wait
        # for its delay, and for nothing else.
        downloader: Any = self.crawler.engine.downloader
        slot = downloader.slots[host]
        resume_at = time.monotonic() + seconds
        if resume_at > self.resume_at.get(host, 0.0):
            self.resume_at[host] = resume_at
            slot.close()
            slot.latercall = call_later(seconds, downloader._latercall, slot)


def parse_retry_after(header: bytes, date: bytes | None) -> float | None:
    """What Retry-After asks for: seconds, or an HTTP date, by the clock that wrote *date*.

    None where it says neither.
    """
    text = header.decode("latin-1").strip()
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        now = parsedate_to_datetime(date.decode("latin-1")) if date else dt.datetime.now(dt.UTC)
        return max(0.0, (parsedate_to_datetime(text) - now).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None
