"""Fuel stations and what fuel costs there."""

from decimal import Decimal
from typing import Literal

from catlog_scrapy.items.record import Record


class Station(Record, key="id", view="stations"):
    """A fuel station. Its coordinates are the source's pair, in the source's order."""

    id: int
    number: str
    address: str
    coordinate_x: float
    coordinate_y: float
    image_urls: list[str]
    services: list[str]


class FuelPrice(Record, key=("station_id", "fuel"), view="fuel_prices"):
    """What one fuel costs at one station."""

    station_id: int
    fuel: str
    price: Decimal
    currency: Literal["RUB", "USD", "EUR", "RSD"]
