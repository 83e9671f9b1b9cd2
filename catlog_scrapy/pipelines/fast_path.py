"""Fast path: items that only catlog's pipelines process bypass Scrapy's queue and signal.

Scrapy spends more on each item than validation and storage: a queue, a task switch, a coroutine per
pipeline, a log record that nobody prints, and the signal `item_scraped`. See
docs/decisions/fast-path.md.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from pydispatch import dispatcher
from scrapy import Request, signals
from scrapy.crawler import Crawler
from scrapy.extensions.corestats import CoreStats
from scrapy.pipelines import ItemPipelineManager
from scrapy.utils.asyncgen import as_async_generator
from scrapy.utils.defer import aiter_errback

from catlog_scrapy.crawl.attempt import Attempt
from catlog_scrapy.crawl.failed_item import FailedItem
from catlog_scrapy.crawl.item_order import TicketedItem
from catlog_scrapy.crawl.scraped_log import ScrapedLog
from catlog_scrapy.pipelines.store import StorePipeline
from catlog_scrapy.pipelines.validate import Rejected, ValidatePipeline

# A callback or `start()` runs so long before the event loop may do other work: downloads,
# heartbeats of the HTTP connections, the end of a batch, a cancellation.
MAX_TURN_S = 0.01


class FastPath:
    """Processor of a crawl's items in the order in which the spider yields them.

    Scrapy gets the requests, and these items: all items of a crawl with pipelines of the project or
    with a foreign listener to `item_scraped`, items with media, and items that fail. Stored items
    are logged and counted as by Scrapy.
    """

    def __init__(self, crawler: Crawler, attempt: Attempt) -> None:
        self.crawler = crawler
        self.attempt = attempt
        self.engine: Any = None
        self.scraper: Any = None
        self.listeners = ScrapedListeners(crawler)
        self.log = ScrapedLog(crawler)
        self.is_logging = True
        self.scraped = 0
        self.validate: ValidatePipeline | None = None
        self.store: StorePipeline | None = None
        self.media: list[Any] = []
        self.order: Any = None
        self.is_before_middlewares = False

    def install(self) -> None:
        """Wrap the scraper's methods, after the spider has opened and before any request."""
        self.engine = self.crawler.engine
        self.scraper = scraper = self.engine.scraper
        self.log.install()
        if not self._find_pipelines():
            return
        self.is_before_middlewares = not any(map(changes_items, scraper.spidermw.middlewares))
        scraper.call_spider_async = self._around_spider(scraper.call_spider_async)
        scraper.handle_spider_output_async = self._handle_output
        self.attempt.process_outputs = self.process

    def _find_pipelines(self) -> bool:
        """Return whether the crawl has only catlog's own pipelines, and keep them."""
        if type(self.scraper.itemproc) is not ItemPipelineManager:
            return False
        pipelines = self.scraper.itemproc.middlewares
        if [type(pipeline) for pipeline in pipelines[-2:]] != [ValidatePipeline, StorePipeline]:
            return False
        *media, validate, store = pipelines
        if media:  # the import takes 11 ms
            from catlog_scrapy.pipelines.media import FileLinks, ImageLinks

            if any(type(pipeline) not in (FileLinks, ImageLinks) for pipeline in media):
                return False
        self.media, self.validate, self.store = media, validate, store
        self.order = store.writer.order
        return True

    def _around_spider(self, call: Callable[..., Any]) -> Callable[..., Any]:
        async def called(result: Any, request: Request) -> Any:
            output = await call(result, request)
            return self.process(output, result) if self.is_before_middlewares else output

        return called

    async def _handle_output(self, result: Any, request: Request, response: Any) -> None:
        """Handle the output of a callback as Scrapy does, with a task for each item that needs one.

        Scrapy starts CONCURRENT_ITEMS tasks for a response, which few responses need.
        """
        scraper = self.scraper
        left = aiter_errback(
            as_async_generator(result), scraper.handle_spider_error, request, response
        )
        if not self.is_before_middlewares:
            left = self.process(left, response)
        tasks: set[asyncio.Task[None]] = set()
        try:
            async for output in left:
                handling = scraper._process_spidermw_output_async(output, response)
                if isinstance(output, Request):
                    await handling
                    continue
                tasks.add(asyncio.create_task(handling))
                if len(tasks) >= scraper.concurrent_items:
                    _, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        except Exception as error:
            # Scrapy would only log an error at this place.
            self.attempt.record_error("processing the output of a callback", error)
            raise
        finally:
            if tasks:
                await asyncio.wait(tasks)

    async def process(
        self, outputs: Iterable[Any] | AsyncIterator[Any], response: Any = None
    ) -> AsyncIterator[Any]:
        """Process the items of *outputs*, and yield what Scrapy has to process.

        The output of a crawl that has to stop or has stopped is discarded: its attempt is not done.
        """
        attempt, engine, gate = self.attempt, self.engine, self.attempt.gate
        self.is_logging = self.log.is_needed()
        turn_ends_at = time.perf_counter() + MAX_TURN_S
        try:
            async for output in as_async_generator(outputs):
                if attempt.stop_code or engine.spider is None:
                    return
                left = output
                if not isinstance(output, Request) and output is not None:
                    if not gate.is_open:
                        self._count()
                        await gate.wait()
                    if not self.order.gate.is_open:
                        self._count()
                        await self.order.gate.wait()
                    if self._takes(output):
                        left = self._store(output, response)
                    else:
                        left = TicketedItem(output, self.order.open())
                if left is not None:
                    self._count()
                    yield left
                if time.perf_counter() >= turn_ends_at:
                    self._count()
                    await asyncio.sleep(0)
                    self.is_logging = self.log.is_needed()
                    turn_ends_at = time.perf_counter() + MAX_TURN_S
        finally:
            self._count()

    def _takes(self, item: Any) -> bool:
        try:
            for pipeline in self.media:
                if pipeline.has_media(item):
                    return False
        except Exception:  # the boundary to foreign items: Scrapy's path reports the error
            return False
        return self.listeners.are_known()

    def _store(self, item: Any, response: Any) -> FailedItem | None:
        """Validate, write and count *item*; return an item that failed or has rejections."""
        assert self.validate and self.store
        try:
            validated = self.validate.validate(item)
            if self.order.tickets:
                self.order.put(validated.rows, validated.cursor)
            else:
                self.store.writer.write(validated.rows, validated.cursor)
        except Exception as error:  # the boundary to foreign validators: Scrapy reports any error
            return FailedItem(item, error)
        if validated.rejections:
            return FailedItem(item, Rejected(validated.rejections))
        if self.listeners.core_stats is not None:
            self.scraped += 1
        if self.is_logging:
            try:
                self.log.log(item, response)
            except Exception as error:  # the boundary to foreign log formatters
                self.attempt.record_error("a pipeline", error)
        return None

    def _count(self) -> None:
        """Bring Scrapy's statistics up to date, before any other code may read them.

        Scrapy counts each item, which costs as much as its validation by pydantic.
        """
        if self.scraped:
            scraped, self.scraped = self.scraped, 0
            self.crawler.stats.inc_value("item_scraped_count", scraped)


def changes_items(middleware: Any) -> bool:
    """Return whether a spider middleware may process items; Scrapy's own process only requests."""
    return hasattr(middleware, "process_spider_output") and not type(
        middleware
    ).__module__.startswith("scrapy.spidermiddlewares.")


class ScrapedListeners:
    """Listeners to `item_scraped` of one crawl; known are none, or only Scrapy's CoreStats.

    Components connect at any time and to any sender, so the lists are compared for each item.
    """

    def __init__(self, crawler: Crawler) -> None:
        self.sender = crawler.signals.sender
        self.core_stats: Any = None
        self.checked: list[Any] | None = None
        self.checked_are_known = False

    def are_known(self) -> bool:
        """Return whether no foreign component listens, neither to this sender nor to any."""
        own = dispatcher.connections.get(id(self.sender), {})
        of_any_sender = dispatcher.connections.get(id(dispatcher.Any), {})
        receivers = own.get(signals.item_scraped, [])
        if receivers != self.checked:
            self._check(receivers)
        return (
            self.checked_are_known
            and dispatcher.Any not in own
            and dispatcher.Any not in of_any_sender
            and signals.item_scraped not in of_any_sender
        )

    def _check(self, receivers: Iterable[Any]) -> None:
        self.checked = list(receivers)
        owners = [
            getattr(receiver, "__self__", None)
            for receiver in dispatcher.liveReceivers(self.checked)
        ]
        self.checked_are_known = len(owners) <= 1 and all(type(o) is CoreStats for o in owners)
        self.core_stats = owners[0] if owners and self.checked_are_known else None
