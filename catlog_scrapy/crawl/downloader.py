"""As many requests at once as the settings say."""

from collections.abc import Coroutine
from typing import Any

from scrapy import Request
from scrapy.core import downloader
from scrapy.http import Response
from twisted.internet.defer import Deferred


class Downloader(downloader.Downloader):
    """Scrapy's own, but for a fault of it.

    With the asyncio reactor Scrapy 2.19 counts a request as under way only once its task has begun,
    and so begins all that wait, whatever CONCURRENT_REQUESTS_PER_DOMAIN says.
    """

    def _wait_for_download(
        self, slot: downloader.Slot, request: Request, queue_dfd: "Deferred[Response]"
    ) -> Coroutine[Any, Any, None]:
        slot.transferring.add(request)
        return super()._wait_for_download(slot, request, queue_dfd)
