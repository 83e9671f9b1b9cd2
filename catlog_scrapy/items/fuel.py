"""Fuel stations, what fuel costs there, and what both refer to."""

from decimal import Decimal
from typing import Annotated, Literal

from catlog_scrapy.items.media import ImagesOf
from catlog_scrapy.items.record import Record


class Station(Record, key="id", view="stations"):
    """A fuel station. Its coordinates are the source's pair, in the source's order.

    `services` are names; what else is known of them is a FuelService's.
    """

    id: int
    number: str
    address: str
    coordinate_x: float
    coordinate_y: float
    image_urls: list[str]
    images: Annotated[list[str], ImagesOf("image_urls")] = []
    services: list[str]


class FuelPrice(Record, key=("station_id", "fuel"), view="fuel_prices"):
    """What one fuel costs at one station."""

    station_id: int
    fuel: str
    price: Decimal
    currency: Literal["RUB", "USD", "EUR", "RSD"]


class FuelType(Record, key="id", view="fuel_types"):
    """A sort of fuel; prices name it by its name."""

    id: int
    name: str
    icon_url: str | None
    icon: Annotated[str | None, ImagesOf("icon_url")] = None


class FuelService(Record, key="id", view="fuel_services"):
    """What stations offer besides fuel; they name it by its name."""

    id: int
    name: str
    icon_url: str | None
    icon: Annotated[str | None, ImagesOf("icon_url")] = None
