"""Fuel spiders: requests and refused documents; helpers for tests of other spiders.

What a spider makes of its saved pages is checked with all others': see test_conformance.
"""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from scrapy import Request, Spider
from scrapy.http import HtmlResponse, TextResponse

from catlog_scrapy.records.lookup import record_types
from catlog_scrapy.spiders.fuel_prices import FuelPrices
from catlog_scrapy.spiders.fuel_stations import FuelStations

PAGES = Path(__file__).parent.parent / "pages"
FUEL = "https://fuel.example"


def page(spider: Spider, file: str, url: str) -> TextResponse:
    """Return a saved page of *spider* as the response from *url*."""
    path = PAGES / spider.name / file
    kind = HtmlResponse if path.suffix == ".html" else TextResponse
    return kind(url, body=path.read_bytes(), encoding="utf-8", request=Request(url))


def changed(response: TextResponse, old: str, new: str) -> TextResponse:
    """Return the page with *old* replaced by *new*, as after a change of markup."""
    assert old in response.text
    return response.replace(body=response.text.replace(old, new).encode())


def first_requests(spider: Spider) -> list[str]:
    async def collect() -> list[str]:
        return [request.url async for request in spider.start()]

    return asyncio.run(collect())


def validated(spider: Spider, items: list[Any]) -> list[dict[str, Any]]:
    """Return the validated records of *items*, as JSON values."""
    (record,) = record_types(spider)
    records = [record.model_validate(item) for item in items]
    assert len({one.row()[0] for one in records}) == len(items), "each has a key of its own"
    return [one.model_dump(mode="json") for one in records]


def test_fuel_prices_spider_requests_its_document() -> None:
    assert first_requests(FuelPrices(base_url=FUEL)) == [f"{FUEL}/fuel-prices"]


@pytest.mark.parametrize("spider", [FuelStations(), FuelPrices()], ids=lambda one: one.name)
@pytest.mark.parametrize("body", ['{"error": "try later"}', '["АИ-95"]', "<html>", "null"])
def test_unexpected_document_fails_the_load(spider: Any, body: str) -> None:
    response = TextResponse(FUEL, body=body.encode(), encoding="utf-8")
    with pytest.raises(ValueError, match=r"the source has changed|Expecting value"):
        list(spider.parse(response))


def test_prices_renamed_in_the_source_fail_the_load() -> None:
    spider = FuelPrices(base_url=FUEL)
    response = page(spider, "fuel-prices.json", f"{FUEL}/fuel-prices")
    with pytest.raises(KeyError, match="fuel_prices"):
        list(spider.parse(changed(response, "fuel_prices", "prices")))
