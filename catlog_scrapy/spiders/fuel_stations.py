"""Stations of a fuel network."""

from collections.abc import Iterator
from typing import Any

from catlog_scrapy.base_spiders.json_document import JsonDocument
from catlog_scrapy.items.fuel import Station


class FuelStations(JsonDocument):
    """Stations: GET /fuel-stations takes four seconds. It changes about every two days.

    [{id, coordinates [x, y], number, address, image_urls [..], additional_services [names]}]
    """

    name = "fuel_stations"
    record = Station
    path = "fuel-stations"

    def items(self, entry: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the item of a station."""
        coordinates = entry.get("coordinates") or ()
        images = entry.get("image_urls")
        yield {
            "id": entry.get("id"),
            "number": entry.get("number"),
            "address": entry.get("address"),
            **dict(zip(("coordinate_x", "coordinate_y"), coordinates, strict=False)),
            "image_urls": [*map(self.absolute, images)] if isinstance(images, list) else images,
            "services": entry.get("additional_services"),
        }
