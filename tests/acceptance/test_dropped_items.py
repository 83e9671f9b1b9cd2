"""Items that a project's own pipelines drop: they never remove the records of former loads."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.cases import Case, end_of, load_cases, run_cases
from tests.support.project import Project
from tests.support.raw_source import RawSource, response
from tests.support.waiting import rows

# A pipeline that drops what it has seen before, as many projects have, and one that filters.
PARTS = """
from pathlib import Path

from scrapy.exceptions import DropItem

SEEN = Path(__file__).with_name("seen")


class DropSeen:
    def process_item(self, item):
        SEEN.touch()
        if item["number"] < 400 and item["id"] in SEEN.read_text().split():
            raise DropItem("seen before")
        with SEEN.open("a") as file:
            file.write(item["id"] + " ")
        return item


class DropOdd:
    def process_item(self, item):
        if item["number"] % 2:
            raise DropItem("odd")
        return item


class DropKnownBatches:
    seen = SEEN.with_name("seen-batches")

    def process_item(self, batch):
        first = batch.items[0]["id"]
        self.seen.touch()
        if first in self.seen.read_text().split():
            raise DropItem("seen before")
        with self.seen.open("a") as file:
            file.write(first + " ")
        return batch
"""
BATCHES = """
    def parse(self, response):
        items = json.loads(response.body)
        for start in range(0, len(items), 100):
            yield Batch(items[start : start + 100])
"""
CASE = """
    path = "/all"
    custom_settings = {{"ITEM_PIPELINES": {{"shop.parts.{pipeline}": 1}}}}
"""


def body(numbers: range) -> bytes:
    return json.dumps([{"id": f"k{number}", "number": number} for number in numbers]).encode()


class Shop:
    """Project with one spider behind *pipeline*, and its source."""

    def __init__(self, folder: Path, url: str, source: RawSource, pipeline: str, declared: str):
        self.source = source
        parse = BATCHES if pipeline == "DropKnownBatches" else ""
        self.cases = {"goods": Case(CASE.format(pipeline=pipeline) + parse, declared=declared)}
        source.answers["/all"] = response(body(range(1000)))
        modules = {"shop/parts.py": PARTS}
        self.engine = run_cases(folder, url, source.url, self.cases, modules=modules)
        self.project = Project(folder, url)

    def load(self, numbers: range = range(1000)) -> dict[str, int]:
        """Load once more, and return the counts of the publish."""
        self.source.answers["/all"] = response(body(numbers))
        load_cases(self.project, self.engine, self.cases)
        query = "SELECT published FROM catlog.catalog ORDER BY number DESC LIMIT 1"
        [(counts,)] = rows(self.engine, query)
        return dict(counts or {})

    def error(self) -> str:
        """Return the error of the last load."""
        return end_of(self.engine, "goods").error

    def current(self) -> int:
        """Return the number of current records."""
        return len(end_of(self.engine, "goods").keys)


@pytest.fixture
def given_a_shop(database_url: str, tmp_path: Path) -> Iterator[Callable[..., Shop]]:
    """Return a function that loads a shop behind a pipeline once, and returns the shop."""
    with RawSource() as source, ExitStack() as shops:

        def make(pipeline: str, declared: str = "") -> Shop:
            shop = Shop(tmp_path, database_url, source, pipeline, declared)
            shops.callback(shop.engine.dispose)
            return shop

        yield make


def test_drops_of_known_items_remove_nothing(given_a_shop: Callable[..., Shop]) -> None:
    shop = given_a_shop("DropSeen")
    for _ in range(2):
        counts = shop.load()
        assert (counts["kept"], "removed" in counts) == (400, False)
        assert shop.current() == 1000


def test_few_removed_records_stay_beside_new_drops(given_a_shop: Callable[..., Shop]) -> None:
    shop = given_a_shop("DropSeen")
    assert shop.load(range(990))["kept"] == 410
    assert shop.current() == 1000


def test_pipeline_that_always_drops_the_same_explains_nothing(
    given_a_shop: Callable[..., Shop],
) -> None:
    shop = given_a_shop("DropOdd")
    assert shop.current() == 500
    assert shop.load(range(980))["removed"] == 10
    assert shop.current() == 490


def test_drops_explain_records_beyond_the_tolerance_too(given_a_shop: Callable[..., Shop]) -> None:
    shop = given_a_shop("DropSeen")
    assert shop.load(range(700))["kept"] == 700
    assert shop.current() == 1000


def test_refused_removals_name_the_drops(given_a_shop: Callable[..., Shop]) -> None:
    shop = given_a_shop("DropOdd")
    shop.load(range(100))
    assert "would remove 450 of 500 records, tolerated 0.5" in shop.error()
    assert "its pipelines dropped 50 items. Look at what the load received" in shop.error()
    assert shop.current() == 500


def test_drops_of_known_batches_remove_nothing(given_a_shop: Callable[..., Shop]) -> None:
    shop = given_a_shop("DropKnownBatches")
    # Nine of ten batches are known; the last one is new.
    counts = shop.load(range(100, 1100))
    assert (counts["kept"], "removed" in counts) == (1000, False)
    assert shop.current() == 1100


def test_tolerance_counts_the_items_of_a_dropped_batch(given_a_shop: Callable[..., Shop]) -> None:
    shop = given_a_shop("DropKnownBatches", "tolerate.dropped = 899")
    shop.load(range(100, 1100))
    assert "900 items dropped" in shop.error()
    assert shop.current() == 1000
