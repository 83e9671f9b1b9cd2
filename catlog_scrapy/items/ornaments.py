"""Products of ornament shops, by year of release."""

from decimal import Decimal
from typing import Annotated, Literal

from catlog_scrapy.records.media import ImagesOf
from catlog_scrapy.records.record import Record


class YearLink(Record, key=("vendor", "year"), view="year_links"):
    """Link to a shop's products of a year."""

    vendor: str
    year: int
    link: str


class Product(
    Record,
    key=("vendor", "sku", "name", "link"),
    view="products",
    index=(("vendor", "sku"), ("vendor", "release_year", "sku"), "created_at"),
):
    """Ornament in a shop. `price` is null if the shop shows no price."""

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
