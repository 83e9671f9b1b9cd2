"""Fuel stations, what fuel costs there, and what both refer to."""

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from catlog_scrapy.records.media import ImagesOf
from catlog_scrapy.records.record import Record


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


class FuelTypeOffered(BaseModel):
    """A sort of fuel, as clients get it; one that is listed nowhere has no id."""

    id: int | None
    name: str
    icon: str | None


class FuelOffered(BaseModel):
    """What a fuel costs, as clients get it."""

    price: float
    currency: str = Field(examples=["RUB"])
    fuel_type: FuelTypeOffered


class ServiceOffered(BaseModel):
    """What a station offers besides fuel, as clients get it."""

    id: int | None
    name: str
    icon: str | None


class FuelStation(BaseModel):
    """A station as clients get it: a row of the view `fuel_stations`."""

    id: int
    coordinate_x: float
    coordinate_y: float
    number: str
    address: str
    image_urls: list[str]
    fuels: list[FuelOffered]
    services: list[ServiceOffered]
