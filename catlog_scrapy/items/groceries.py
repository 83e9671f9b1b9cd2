"""What a grocery delivery shows in its showcases."""

from decimal import Decimal
from typing import Any
from uuid import UUID

from catlog_scrapy.records.record import Record


class Showcase(Record, key=("id", "page"), view="showcases"):
    """One page of a showcase: the document as the source gives it."""

    id: str
    page: int
    document: dict[str, Any]


class ShowcaseProduct(Record, key="id", view="showcase_products"):
    """A product in a showcase. Prices are in roubles; the old one is of before a sale."""

    id: UUID
    showcase: str
    name: str
    specification: str
    price: Decimal
    old_price: Decimal | None
    badges: list[str]
    in_stock: bool
    image: str
