"""Downloader that keeps CONCURRENT_REQUESTS_PER_DOMAIN."""

from collections.abc import Coroutine
from typing import Any

from scrapy import Request
from scrapy.core import downloader
from scrapy.http import Response
from twisted.internet.defer import Deferred


class Downloader(downloader.Downloader):
    """Scrapy's downloader, with a fix of its concurrency limit.

    With the asyncio reactor, Scrapy 2.19 counts a request as active only when its task has begun.
    So Scrapy starts all waiting requests at once, whatever CONCURRENT_REQUESTS_PER_DOMAIN is.
    """

    def _wait_for_download(
        self, slot: downloader.Slot, request: Request, queue_dfd: "Deferred[Response]"
    ) -> Coroutine[Any, Any, None]:
        slot.transferring.add(request)
        return super()._wait_for_download(slot, request, queue_dfd)
