"""Downloads of a crawl, which end at once when the crawl has to stop."""

import asyncio
from typing import Any

from scrapy import Request
from scrapy.crawler import Crawler
from scrapy.exceptions import IgnoreRequest
from scrapy.http import Response

from catlog_scrapy.crawl.address_guard import AddressGuard
from catlog_scrapy.crawl.attempt import Attempt
from catlog_scrapy.declarations.spiders import allowed_places


class Downloads:
    """Wrapper of one crawl's downloader that guards, counts and cancels requests.

    Scrapy closes a spider only after all requests in the downloader have ended. With a source that
    stalls, or a long DOWNLOAD_DELAY, a stopped crawl would look hung and be killed with its
    process.
    """

    def __init__(self, crawler: Crawler, attempt: Attempt) -> None:
        self.crawler = crawler
        self.attempt = attempt
        claim = attempt.claim
        places = allowed_places(
            crawler.settings, claim.provider, claim.base_url, claim.limits.get("hosts", ())
        )
        given = [text for name, text in claim.arguments.items() if name in claim.given]
        self.guard = AddressGuard(places, given, crawler.spidercls)
        self.running: set[asyncio.Task[Any]] = set()

    def install(self) -> None:
        """Wrap the downloader's methods, after the spider has opened and before any request."""
        downloader: Any = self.crawler.engine.downloader
        enqueue = downloader._enqueue_request
        download = downloader.handlers.download_request_async

        async def enqueued(request: Request) -> Response:
            self._raise_if_stopped()
            response: Response = await enqueue(request)
            return response

        async def downloaded(request: Request) -> Response:
            self._raise_if_stopped()
            task = asyncio.current_task()
            assert task
            self.running.add(task)
            try:
                await self.guard.check(request)
                response: Response = await download(request)
                await self.guard.check_response(request, response)
            except asyncio.CancelledError:
                self._raise_if_stopped()
                raise
            finally:
                self.running.discard(task)
            self.attempt.received += 1
            return response

        downloader._enqueue_request = enqueued
        downloader.handlers.download_request_async = downloaded

    def cancel(self) -> None:
        """End all waiting and running requests with IgnoreRequest."""
        for slot in list(self.crawler.engine.downloader.slots.values()):
            while slot.queue:
                slot.queue.popleft()[1].errback(self._stopped())
        for task in list(self.running):
            task.cancel()

    def _raise_if_stopped(self) -> None:
        if self.attempt.stop_code:
            raise self._stopped()

    def _stopped(self) -> IgnoreRequest:
        """Make the error of a cancelled request, which Scrapy does not retry."""
        return IgnoreRequest(f"the crawl has to stop: {self.attempt.stop_reason}")
