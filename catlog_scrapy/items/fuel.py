"""Fuel stations, fuel prices, fuel types and services."""

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from catlog_scrapy.records.media import ImagesOf
from catlog_scrapy.records.record import Record


class Station(Record, key="id", view="stations"):
    """Fuel station. Its coordinates are the source's pair, in the source's order.

    `services` are names of FuelService records.
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
    """Price of a fuel at a station."""

    station_id: int
    fuel: str
    price: Decimal
    currency: Literal["RUB", "USD", "EUR", "RSD"]


class FuelType(Record, key="id", view="fuel_types"):
    """Fuel type. Prices refer to its name."""

    id: int
    name: str
    icon_url: str | None
    icon: Annotated[str | None, ImagesOf("icon_url")] = None


class FuelService(Record, key="id", view="fuel_services"):
    """Service of a station besides fuel. Stations refer to its name."""

    id: int
    name: str
    icon_url: str | None
    icon: Annotated[str | None, ImagesOf("icon_url")] = None


class FuelTypeOffered(BaseModel):
    """Fuel type for clients. A type that the source does not list has no id."""

    id: int | None
    name: str
    icon: str | None


class FuelOffered(BaseModel):
    """Price of a fuel for clients."""

    price: float
    currency: str = Field(examples=["RUB"])
    fuel_type: FuelTypeOffered


class ServiceOffered(BaseModel):
    """Service of a station for clients. A service that the source does not list has no id."""

    id: int | None
    name: str
    icon: str | None


class FuelStation(BaseModel):
    """Station for clients: a row of the view `fuel_stations`."""

    id: int
    coordinate_x: float
    coordinate_y: float
    number: str
    address: str
    image_urls: list[str]
    fuels: list[FuelOffered]
    services: list[ServiceOffered]
