"""Record types of the benchmarks: products of an ornament shop, without and with indexes.

The types are not those of the project, whose declarations would change what is measured.
"""

from decimal import Decimal
from typing import Annotated, Literal

from benchmarks.rows import KEY
from catlog_scrapy.records.media import ImagesOf
from catlog_scrapy.records.record import Record


class Product(Record, key=KEY, view="products"):
    """Ornament in a shop, without declared indexes."""

    vendor: str
    sku: str
    name: str
    price: Decimal | None
    currency: Literal["USD", "EUR"]
    brand: str
    availability: Literal["available", "unavailable"]
    release_year: int
    link: str
    image_url: str | None = None
    image: Annotated[str | None, ImagesOf("image_url")] = None


class IndexedProduct(
    Product,
    view="products",
    index=(("vendor", "sku"), ("vendor", "release_year", "sku"), "sku", "price", "created_at"),
):
    """Product with indexes for the queries, filters and orders that are measured."""
