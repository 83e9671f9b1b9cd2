"""Retry-After: a host that asks for time gets no request before its time is over."""

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

# Statuses with a Retry-After for new requests: 503 by RFC 9110, 10.2.3, and 429 by RFC 6585, 4.
RETRY_AFTER_STATUSES = (429, 503)


class RetryAfterMiddleware:
    """Downloader middleware that delays all requests to a host as its Retry-After asks.

    Scrapy's retry middleware then repeats the refused request. If a host asks for more than
    CATLOG_RETRY_AFTER seconds, the attempt fails, and the next attempt starts after that time, or
    after a day.
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
        """Make the middleware of a crawl."""
        return cls(crawler)

    def process_response(self, request: Request, response: Response) -> Response:
        """Delay the host's requests, or end the retries of *request*, as Retry-After asks."""
        header = response.headers.get(b"Retry-After")
        seconds = parse_retry_after(header, response.headers.get(b"Date")) if header else None
        host = request.meta.get("download_slot")  # a cached response has no slot
        if response.status not in RETRY_AFTER_STATUSES or seconds is None or host is None:
            return response
        if seconds > self.max_wait_s:
            request.meta["dont_retry"] = True
            # A failed request of an image or of robots.txt does not fail the attempt.
            if request.callback is not NO_CALLBACK:
                self.report.retry_after = max(self.report.retry_after, seconds)
        else:
            self._pause_slot(host, seconds)
        return response

    def _pause_slot(self, host: str, seconds: float) -> None:
        # Requests wait last in the queue of their downloader slot. A slot can only wait for its
        # delay, so its timer is replaced by a longer one.
        downloader: Any = self.crawler.engine.downloader
        slot = downloader.slots[host]
        resume_at = time.monotonic() + seconds
        if resume_at > self.resume_at.get(host, 0.0):
            self.resume_at[host] = resume_at
            slot.close()
            slot.latercall = call_later(seconds, downloader._latercall, slot)


def parse_retry_after(header: bytes, date: bytes | None) -> float | None:
    """Return the seconds that a Retry-After *header* asks for; None if it is invalid.

    An HTTP date counts from *date*, the response's Date, because the host's clock may be wrong.
    """
    text = header.decode("latin-1").strip()
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        now = parsedate_to_datetime(date.decode("latin-1")) if date else dt.datetime.now(dt.UTC)
        return max(0.0, (parsedate_to_datetime(text) - now).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None
