"""Fuel prices at the stations of a network."""

from collections.abc import Iterator
from typing import Any

from catlog_scrapy.base_spiders.json_document import JsonDocument
from catlog_scrapy.items.fuel import FuelPrice


class FuelPrices(JsonDocument):
    """Fuel prices: GET /fuel-prices changes two or three times a day, at any time.

    [{id, fuel_prices [{name, price, currency}]}]. A station may have no prices.
    """

    name = "fuel_prices"
    record = FuelPrice
    path = "fuel-prices"

    def items(self, entry: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield an item for each fuel of a station."""
        for price in entry["fuel_prices"]:
            yield {
                "station_id": entry.get("id"),
                "fuel": price.get("name"),
                "price": price.get("price"),
                "currency": price.get("currency"),
            }
