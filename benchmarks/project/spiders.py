"""Spiders that yield as many products as the setting ITEMS says, each in another way."""

from collections.abc import AsyncIterator, Iterator
from typing import Any, Self

from scrapy import Request, Spider
from scrapy.crawler import Crawler
from scrapy.http import Response
from scrapy.pipelines.images import ImagesPipeline

from benchmarks.rows import pages, product, products
from catlog_scrapy.items.ornaments import Product
from catlog_scrapy.records import Batch
from catlog_scrapy.spiders.hooked_products import HookedProducts

# A response without a network.
NOTHING = "data:text/plain,nothing"


class Shop(Spider):
    """What they share. `items` is how many to yield."""

    record = Product
    items = 0

    @classmethod
    def from_crawler(cls, crawler: Crawler, *args: Any, **kwargs: Any) -> Self:
        spider = super().from_crawler(crawler, *args, **kwargs)
        spider.items = crawler.settings.getint("ITEMS")
        spider.prepare()
        return spider

    def prepare(self) -> None:
        """Before the clock runs."""

    async def start(self) -> AsyncIterator[Any]:
        yield Request(NOTHING)


class OneByOne(Shop):
    """Yields ready dicts from a callback, one by one."""

    name = "one_by_one"

    def prepare(self) -> None:
        self.ready = list(products(self.items))

    def parse(self, response: Response, **_: Any) -> Iterator[dict[str, Any]]:
        yield from self.ready


class Unwatched(OneByOne):
    """The same, but no operation: it just runs, without check and store."""

    name = "unwatched"


class InBatches(Shop):
    """Yields ready pages of 10 000."""

    name = "in_batches"

    def prepare(self) -> None:
        self.ready = pages(self.items)

    def parse(self, response: Response, **_: Any) -> Iterator[Batch]:
        yield from map(Batch, self.ready)


class FromCallback(Shop):
    """Yields from a callback what it makes on the way: nothing of it stays in memory."""

    name = "from_callback"

    def parse(self, response: Response, **_: Any) -> Iterator[dict[str, Any]]:
        yield from products(self.items)


class FromStart(Shop):
    """The same from `start()`."""

    name = "from_start"

    async def start(self) -> AsyncIterator[Any]:
        for one in products(self.items):
            yield one


class ShopPages(HookedProducts):
    """Reads the first years of an ornament shop, ITEMS of them, with a page for each product."""

    name = "shop_pages"

    async def start(self) -> AsyncIterator[Any]:
        for year in range(1973, 1973 + self.settings.getint("ITEMS")):
            yield Request(f"{self.base_url}/{self.year_path.format(year)}")


class KeptImages(ImagesPipeline):
    """Scrapy's own, for one image an item."""

    def get_media_requests(self, item: Any, info: Any) -> list[Request]:
        return [Request(item["image_url"])]


class UnwatchedPages(ShopPages):
    """The same, but no operation: Scrapy keeps the images, and the products go nowhere."""

    name = "unwatched_pages"
    custom_settings = {"ITEM_PIPELINES": {KeptImages: 1}}


class Single(Shop):
    """Yields one product."""

    name = "single"

    def parse(self, response: Response, **_: Any) -> Iterator[dict[str, Any]]:
        yield product(1)
