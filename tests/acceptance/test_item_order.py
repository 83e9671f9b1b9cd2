"""Rows are stored in the order in which the spider yields, however long each item takes.

One worker runs all cases; each test looks at what became of its own.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.support.cases import Case, outcomes, run_cases
from tests.support.postgres import Postgres
from tests.support.source import Answer, Source
from tests.support.waiting import rows

PARTS = """
import asyncio

from scrapy.exceptions import DropItem


class Slow:
    async def process_item(self, item):
        number = item.get("number") if isinstance(item, dict) else None
        if number == 1 or getattr(item, "value", "") == "1":
            await asyncio.sleep(0.3)
        if number == 3:
            raise DropItem("the third")
        return item
"""
SLOW = 'custom_settings = {"ITEM_PIPELINES": {"shop.parts.Slow": 1}}\n'
FILES = 'urls: list[str] = []\n    files: Annotated[list[str], FilesOf("urls")] = []'
MANY = 30_000

CASES = {
    "slow_pipeline": Case(
        SLOW
        + """
    def parse(self, response):
        for number in (1, 2, 3, 4):
            yield {"id": "k", "number": number}
"""
    ),
    "slow_pipeline_of_start": Case(
        SLOW
        + """
    async def start(self):
        for number in (1, 2, 3, 4):
            yield {"id": "k", "number": number}
"""
    ),
    "slow_file": Case(
        """
    def parse(self, response):
        yield {"id": "k", "number": 1, "urls": [self.base_url + "/slow"]}
        yield {"id": "k", "number": 2}
        yield {"id": "k", "number": 4, "urls": [self.base_url + "/fast"]}
"""
    ),
    "slow_file_of_start": Case(
        """
    async def start(self):
        yield {"id": "k", "number": 1, "urls": [self.base_url + "/slow"]}
        yield Batch([{"id": "k", "number": 2}, {"id": "k", "number": 4}])
"""
    ),
    "slow_file_before_an_invalid_item": Case(
        """
    def parse(self, response):
        yield {"id": "k", "number": 1, "urls": [self.base_url + "/slow"]}
        yield {"number": "none"}
        yield {"id": "k", "number": 4}
""",
        declared="tolerate.rejected = 1",
    ),
    "many_items_behind_a_slow_file": Case(
        f"""
    def parse(self, response):
        yield {{"id": "k0", "number": 1, "urls": [self.base_url + "/slow"]}}
        for number in range(1, {MANY}):
            yield {{"id": f"k{{number}}", "number": number}}
"""
    ),
    "many_items_behind_a_slow_pipeline": Case(
        SLOW
        + f"""
    def parse(self, response):
        yield {{"id": "k0", "number": 1}}
        for number in range(10, {MANY}):
            yield {{"id": f"k{{number}}", "number": number}}
"""
    ),
    "slow_cursor": Case(
        SLOW
        + """
    cursor = ""

    def parse(self, response):
        from catlog_scrapy.records import Cursor

        yield {"id": "k", "number": 4}
        yield Cursor("1")
        yield Cursor("2")
""",
        declared='mode = "incremental"',
    ),
}


@pytest.fixture(scope="module")
def loaded(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Run all cases once and return the database."""
    with postgres.clone() as url, Source() as source:
        source.answers = {
            "/ok": Answer(b"[]"),
            "/slow": Answer(b"slow", delay=0.5),
            "/fast": Answer(b"fast"),
        }
        folder: Path = tmp_path_factory.mktemp("order")
        modules = {"shop/parts.py": PARTS}
        engine = run_cases(folder, url, source.url, CASES, modules=modules, fields=FILES)
        yield engine
        engine.dispose()


@pytest.mark.parametrize("name", CASES)
def test_rows_have_the_order_of_their_items(loaded: Engine, name: str) -> None:
    assert outcomes(loaded, name) == ["done"]
    numbers = [
        number
        for (number,) in rows(
            loaded,
            """SELECT CAST(r.data AS jsonb) -> 'number'
               FROM catlog.catalog_operation_instance_result r
               JOIN catlog.catalog_scheme_operation_instance i ON i.id = r.instance_id
               JOIN catlog.catalog_scheme_operation o ON o.id = i.operation_id
               WHERE o.name = :name ORDER BY r.seq""",
            name=name,
        )
    ]
    assert numbers == sorted(numbers)
    assert len(numbers) in (1, 2, 3, MANY, MANY - 9)


@pytest.mark.parametrize("name", [name for name in CASES if "many" not in name])
def test_last_yielded_item_of_a_key_wins(loaded: Engine, name: str) -> None:
    assert rows(loaded, f"SELECT number FROM {name}") == [(4,)]


def test_last_yielded_cursor_wins(loaded: Engine) -> None:
    assert rows(
        loaded, "SELECT read_to FROM catlog.instance_attempt WHERE read_to IS NOT NULL"
    ) == [("2",)]
