"""The downloads of a crawl that has to stop: it waits for none of them."""

import asyncio
from typing import Any

from scrapy import Request
from scrapy.crawler import Crawler
from scrapy.exceptions import IgnoreRequest
from scrapy.http import Response

from catlog_scrapy.crawl.attempt import Attempt


class Downloads:
    """Stands around the downloader of one crawl, counts what comes, and gives up the rest.

    Scrapy ends what it has begun to ask for before a spider closes. A source that stalls, or one
    that is asked politely, slowly, would take the crawl for hung, and its process along.
    """

    def __init__(self, crawler: Crawler, attempt: Attempt) -> None:
        self.crawler = crawler
        self.attempt = attempt
        self.running: set[asyncio.Task[Any]] = set()

    def install(self) -> None:
        """Once the spider has opened, before anything is asked for."""
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
                response: Response = await download(request)
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
        """Let all that runs, and all that waits for its turn, come to nothing."""
        for slot in list(self.crawler.engine.downloader.slots.values()):
            while slot.queue:
                slot.queue.popleft()[1].errback(self._stopped())
        for task in list(self.running):
            task.cancel()

    def _raise_if_stopped(self) -> None:
        if self.attempt.stop_code:
            raise self._stopped()

    def _stopped(self) -> IgnoreRequest:
        """No error of the source: nobody is to try again."""
        return IgnoreRequest(f"the crawl has to stop: {self.attempt.stop_reason}")
