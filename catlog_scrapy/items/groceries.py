"""Showcases of a grocery delivery, and their products."""

from decimal import Decimal
from typing import Any
from uuid import UUID

from catlog_scrapy.records.record import Record


class Showcase(Record, key=("id", "page"), view="showcases"):
    """Page of a showcase, with the source's document."""

    id: str
    page: int
    document: dict[str, Any]


class ShowcaseProduct(Record, key="id", view="showcase_products"):
    """Product of a showcase. Prices are in roubles. `old_price` is the price before a sale."""

    id: UUID
    showcase: str
    name: str
    specification: str
    price: Decimal
    old_price: Decimal | None
    badges: list[str]
    in_stock: bool
    image: str
