"""Fuel spiders that link pictures, tested with saved documents."""

import json
from typing import Any

import pytest
from scrapy import Spider
from scrapy.http import TextResponse

from catlog_scrapy.spiders.fuel_services import FuelServices
from catlog_scrapy.spiders.fuel_stations import FuelStations
from catlog_scrapy.spiders.fuel_types import FuelTypes
from tests.unit.test_spiders import FUEL, PAGES, changed, first_requests, page, validated

SPIDERS = [
    (FuelStations(base_url=FUEL), "fuel-stations"),
    (FuelTypes(base_url=FUEL), "fuel-types"),
    (FuelServices(base_url=FUEL), "services"),
]


@pytest.mark.parametrize(("spider", "path"), SPIDERS, ids=lambda one: getattr(one, "name", ""))
def test_fuel_items_match_the_golden_result(spider: Any, path: str) -> None:
    assert first_requests(spider) == [f"{FUEL}/{path}"]
    items = list(spider.parse(page(spider, f"{path}.json", f"{FUEL}/{path}")))
    golden = (PAGES / spider.name / f"{path}.items.json").read_text(encoding="utf-8")
    assert validated(spider, items) == json.loads(golden)


@pytest.mark.parametrize(
    ("spider", "path", "old"),
    [(*SPIDERS[0], "image_urls"), (*SPIDERS[0], "coordinates"), (*SPIDERS[1], "name")],
)
def test_fuel_field_renamed_in_the_source_does_not_validate(
    spider: Spider, path: str, old: str
) -> None:
    response = changed(page(spider, f"{path}.json", f"{FUEL}/{path}"), old, "other")
    with pytest.raises(ValueError, match="validation error"):
        validated(spider, list(spider.parse(response)))


def test_icons_renamed_in_the_source_fail_the_load() -> None:
    """An icon may be null, but must be present."""
    spider = FuelTypes(base_url=FUEL)
    response = changed(page(spider, "fuel-types.json", FUEL), '"icon"', '"picture"')
    with pytest.raises(KeyError, match="icon"):
        list(spider.parse(response))


@pytest.mark.parametrize("link", [None, "", 5, ["a.png"], "http://["])
def test_invalid_icon_link_is_left_to_validation(link: Any) -> None:
    spider = FuelTypes(base_url=FUEL)
    body = json.dumps([{"id": 1, "name": "АИ-95", "icon": link}]).encode()
    [item] = spider.parse(TextResponse(FUEL, body=body, encoding="utf-8"))
    assert item == {"id": 1, "name": "АИ-95", "icon_url": link}


def test_defective_station_does_not_affect_other_stations() -> None:
    spider = FuelStations(base_url=FUEL)
    response = TextResponse(
        FUEL, body=b'[{"id": 1, "coordinates": null}, {"coordinates": [1]}]', encoding="utf-8"
    )
    nothing = {"number": None, "address": None, "image_urls": None, "services": None}
    assert list(spider.parse(response)) == [
        {"id": 1, **nothing},
        {"id": None, "coordinate_x": 1, **nothing},
    ]
