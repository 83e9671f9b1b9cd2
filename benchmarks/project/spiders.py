"""Spiders that yield as many products as the setting ITEMS says, in different ways."""

from collections.abc import AsyncIterator, Iterator
from typing import Any, Self

from scrapy import Request, Spider
from scrapy.crawler import Crawler
from scrapy.http import Response
from scrapy.pipelines.images import ImagesPipeline

from benchmarks.project.items import IndexedProduct, Product
from benchmarks.rows import BATCH, pages, product, products
from catlog_scrapy.records import Batch
from catlog_scrapy.spiders.hooked_products import HookedProducts

# A request that needs no network.
NOTHING = "data:text/plain,nothing"


class Shop(Spider):
    """Base of the spiders. `items` is the number of products to yield."""

    record = Product
    items = 0

    @classmethod
    def from_crawler(cls, crawler: Crawler, *args: Any, **kwargs: Any) -> Self:
        spider = super().from_crawler(crawler, *args, **kwargs)
        spider.items = crawler.settings.getint("ITEMS")
        spider.prepare()
        return spider

    def prepare(self) -> None:
        """Prepare the items before the clock starts."""

    async def start(self) -> AsyncIterator[Any]:
        yield Request(NOTHING)


class OneByOne(Shop):
    """Spider that yields prepared dicts from a callback."""

    name = "one_by_one"

    def prepare(self) -> None:
        self.ready = list(products(self.items))

    def parse(self, response: Response, **_: Any) -> Iterator[dict[str, Any]]:
        yield from self.ready


class NullPipeline:
    """Pipeline that does nothing."""

    def process_item(self, item: Any) -> Any:
        return item


class WithNullPipeline(OneByOne):
    """OneByOne for Scrapy without catlog: no validation, no storage."""

    name = "with_null_pipeline"
    custom_settings = {"ITEM_PIPELINES": {NullPipeline: 1}}


class InBatches(Shop):
    """Spider that yields prepared pages of 10 000 products."""

    name = "in_batches"

    def prepare(self) -> None:
        self.ready = pages(self.items, self.settings.get("CHANGED", ""))

    def parse(self, response: Response, **_: Any) -> Iterator[Batch]:
        yield from map(Batch, self.ready)


class Indexed(InBatches):
    """InBatches with indexes."""

    name = "indexed"
    record = IndexedProduct


class InGeneratedBatches(Shop):
    """Spider that generates its pages during the crawl, so that none stays in memory."""

    name = "in_generated_batches"

    def parse(self, response: Response, **_: Any) -> Iterator[Batch]:
        for first in range(0, self.items, BATCH):
            yield Batch([product(n) for n in range(first, min(first + BATCH, self.items))])


class FromCallback(Shop):
    """Spider that generates products in a callback, so that none stays in memory."""

    name = "from_callback"

    def parse(self, response: Response, **_: Any) -> Iterator[dict[str, Any]]:
        yield from products(self.items)


class FromStart(Shop):
    """Spider that generates products in `start()`."""

    name = "from_start"

    async def start(self) -> AsyncIterator[Any]:
        for one in products(self.items):
            yield one


class ShopPages(HookedProducts):
    """Spider that reads the first ITEMS years of an ornament shop, with a page per product."""

    name = "shop_pages"

    async def start(self) -> AsyncIterator[Any]:
        for year in range(1973, 1973 + self.settings.getint("ITEMS")):
            yield Request(f"{self.base_url}/{self.year_path.format(year)}")


class KeptImages(ImagesPipeline):
    """Scrapy's image pipeline, for one image per item."""

    def get_media_requests(self, item: Any, info: Any) -> list[Request]:
        return [Request(item["image_url"])]


class UnwatchedPages(ShopPages):
    """ShopPages without an operation: images are stored, products are not."""

    name = "unwatched_pages"
    custom_settings = {"ITEM_PIPELINES": {KeptImages: 1}}


class Single(Shop):
    """Spider that yields one product."""

    name = "single"

    def parse(self, response: Response, **_: Any) -> Iterator[dict[str, Any]]:
        yield product(1)
