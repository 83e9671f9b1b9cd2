"""Items that a project's own pipelines drop: they never remove the records of former loads."""

import json
from pathlib import Path

from sqlalchemy import Engine

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

    def __init__(
        self,
        folder: Path,
        url: str,
        source: RawSource,
        pipeline: str,
        *,
        parse: str = "",
        declared: str = "",
    ) -> None:
        self.source = source
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


def current(engine: Engine) -> int:
    return len(end_of(engine, "goods").keys)


def test_drops_of_known_items_remove_nothing(database_url: str, tmp_path: Path) -> None:
    with RawSource() as source:
        shop = Shop(tmp_path, database_url, source, "DropSeen")
        for _ in range(2):
            counts = shop.load()
            assert (counts["kept"], "removed" in counts) == (400, False)
            assert current(shop.engine) == 1000
        shop.engine.dispose()


def test_few_removed_records_stay_beside_new_drops(database_url: str, tmp_path: Path) -> None:
    with RawSource() as source:
        shop = Shop(tmp_path, database_url, source, "DropSeen")
        assert shop.load(range(990))["kept"] == 410
        assert current(shop.engine) == 1000
        shop.engine.dispose()


def test_pipeline_that_always_drops_the_same_explains_nothing(
    database_url: str, tmp_path: Path
) -> None:
    with RawSource() as source:
        shop = Shop(tmp_path, database_url, source, "DropOdd")
        assert current(shop.engine) == 500
        assert shop.load(range(980))["removed"] == 10
        assert current(shop.engine) == 490
        shop.engine.dispose()


def test_drops_explain_records_beyond_the_tolerance_too(database_url: str, tmp_path: Path) -> None:
    with RawSource() as source:
        shop = Shop(tmp_path, database_url, source, "DropSeen")
        assert shop.load(range(700))["kept"] == 700
        assert current(shop.engine) == 1000
        shop.engine.dispose()


def test_refused_removals_name_the_drops(database_url: str, tmp_path: Path) -> None:
    with RawSource() as source:
        shop = Shop(tmp_path, database_url, source, "DropOdd")
        shop.load(range(100))
        error = end_of(shop.engine, "goods").error
        assert "would remove 450 of 500 records, tolerated 0.5" in error
        assert "its pipelines dropped 50 items. Look at what the load received" in error
        assert current(shop.engine) == 500
        shop.engine.dispose()


def test_drops_of_known_batches_remove_nothing(database_url: str, tmp_path: Path) -> None:
    with RawSource() as source:
        shop = Shop(tmp_path, database_url, source, "DropKnownBatches", parse=BATCHES)
        # Nine of ten batches are known; the last one is new.
        counts = shop.load(range(100, 1100))
        assert (counts["kept"], "removed" in counts) == (1000, False)
        assert current(shop.engine) == 1100
        shop.engine.dispose()


def test_tolerance_counts_the_items_of_a_dropped_batch(database_url: str, tmp_path: Path) -> None:
    with RawSource() as source:
        shop = Shop(
            tmp_path,
            database_url,
            source,
            "DropKnownBatches",
            parse=BATCHES,
            declared="tolerate.dropped = 899",
        )
        shop.load(range(100, 1100))
        assert "900 items dropped" in end_of(shop.engine, "goods").error
        assert current(shop.engine) == 1000
        shop.engine.dispose()
