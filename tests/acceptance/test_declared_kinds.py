"""Kinds that a provider file declares for a spider without record types, and its feeds."""

import json
import re
from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.support.factories import sql
from tests.support.project import Project

MIXED = """
    from dataclasses import dataclass

    import scrapy
    from scrapy import Item, Field, Spider


    @dataclass
    class Shop:
        name: str
        city: str


    class Review(Item):
        id = Field()
        text = Field()


    class Mixed(Spider):
        name = "mixed"

        async def start(self):
            yield {"type": "book", "isbn": "1", "price": "", "published": "2026-01-28", "n": 1.5}
            yield {"type": "ebook", "isbn": "2", "price": "12.50", "published": "", "n": ""}
            yield {"type": "author", "author_id": "7", "seen": "1769601600"}
            yield Shop("Corner", "Sofia")
            yield Review(id=5, text="good")
            for item in self.further():
                yield item

        def further(self):
            return ()
"""
KINDS = """
    [provider]
    name = "maker"
    [[scheme]]
    name = "mixed"
    [[scheme.operation]]
    name = "mixed"
    {more}
    [[scheme.operation.kinds]]
    kind = "books"
    key = "isbn"
    fields = {{ isbn = "text", price = "numeric", published = "date" }}
    empty_is_null = true
    untracked = ["n"]
    when = {{ type = ["book", "ebook"] }}
    [[scheme.operation.kinds]]
    kind = "authors"
    key = "author_id"
    fields = {{ author_id = "bigint", seen = "unix_seconds" }}
    when = {{ type = "author" }}
    [[scheme.operation.kinds]]
    kind = "shops"
    key = "name"
    fields = {{ name = "text" }}
    [[scheme.operation.kinds]]
    kind = "reviews"
    key = "id"
    fields = {{ id = "bigint" }}
    item = "Review"
"""


@pytest.fixture
def project(database_url: str, tmp_path: Path) -> Project:
    made = Project(tmp_path, database_url)
    made.write("shop/spiders/mixed.py", MIXED)
    made.write("shop/providers/maker.toml", KINDS.format(more=""))
    return made


def test_items_of_one_spider_are_routed_to_declared_kinds(project: Project, engine: Engine) -> None:
    assert "warning" not in project.scrapy("apply")
    project.scrapy("load", "maker/mixed")
    books = sql(engine, "SELECT isbn, price::text, published::text, data FROM books ORDER BY 1")
    assert [list(book.values()) for book in books] == [
        ["1", None, "2026-01-28", {"n": 1.5, "type": "book"}],
        ["2", "12.50", None, {"n": "", "type": "ebook"}],
    ]
    assert sql(engine, "SELECT author_id, seen::text FROM authors") == [
        {"author_id": 7, "seen": "2026-01-28 12:00:00+00"}
    ]
    assert sql(engine, "SELECT name, data FROM shops") == [
        {"name": "Corner", "data": {"city": "Sofia"}}
    ]
    assert sql(engine, "SELECT id, data FROM reviews") == [{"id": 5, "data": {"text": "good"}}]


def test_item_that_fits_no_kind_or_several_is_rejected(project: Project, engine: Engine) -> None:
    project.write(
        "shop/spiders/mixed.py",
        MIXED.replace(
            "return ()",
            'return [{"type": "film", "id": 1}, {"name": "x", "shop_id": "y"}, {"id": None}]',
        ),
    )
    stalls = """[[scheme.operation.kinds]]
    kind = "stalls"
    key = "shop_id"
    fields = { shop_id = "text" }
"""
    text = KINDS.format(more="tolerate = { rejected = 3 }") + stalls
    project.write("shop/providers/maker.toml", text)
    project.scrapy("apply")
    project.scrapy("load", "maker/mixed")
    rejected = sql(engine, "SELECT errors FROM catlog.rejected_result ORDER BY data")
    reasons = [reason for found in rejected for reason in found["errors"]]
    assert len(reasons) == 3
    assert sum("fits none of the kinds" in reason for reason in reasons) == 2
    assert any("fits several kinds (shops, stalls)" in reason for reason in reasons)


def test_apply_notes_key_types_that_are_not_declared(project: Project) -> None:
    text = KINDS.format(more="").replace('fields = { name = "text" }', "")
    project.write("shop/providers/maker.toml", text)
    for _ in range(2):
        printed = project.scrapy("apply")
        assert re.search(
            r'warning: providers/maker.toml:\d+: scheme "mixed" operation "mixed" kinds: the type'
            r' of the key field "name" is not declared, so it is text',
            printed,
        )


YIELDS = """
    from catlog_scrapy.records import Batch, Cursor, Record, Removed, Unchanged
    from scrapy import Spider


    class Thing(Record, key="id", view="things"):
        id: int


    class Things(Spider):
        name = "things"
        record = Thing

        async def start(self):
            yield Batch([{"id": 1}, Thing.draft(id=2)])
            yield {"id": 3}
            yield Removed(4)
            yield Unchanged(5)
            yield Cursor("2026-01-28")
"""


@pytest.mark.parametrize("is_operation", [True, False])
@pytest.mark.parametrize("form", ["jsonl", "csv", "json"])
def test_feed_has_the_items_of_batches_and_no_removals(
    database_url: str, tmp_path: Path, form: str, *, is_operation: bool
) -> None:
    project = Project(tmp_path, database_url)
    project.write("shop/spiders/things.py", YIELDS)
    if is_operation:
        project.write(
            "shop/providers/maker.toml",
            """
            [provider]
            name = "maker"
            [[scheme]]
            name = "things"
            [[scheme.operation]]
            name = "things"
            mode = "incremental"
            """,
        )
        project.scrapy("apply")
    project.write("shop/providers/other.toml", '[provider]\nname = "other"\n')
    feed = tmp_path / f"out.{form}"
    settings = (tmp_path / "shop" / "settings.py").read_text()
    project.write("shop/settings.py", settings + f'FEEDS = {{"{feed}": {{"format": "{form}"}}}}\n')
    project.scrapy("crawl", "things", code=None)
    text = feed.read_text()
    if form == "csv":
        found = text.split()
        assert found == ["id", "1", "2", "3"]
    else:
        lines = json.loads(text) if form == "json" else map(json.loads, text.splitlines())
        assert list(lines) == [{"id": 1}, {"id": 2}, {"id": 3}]


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ("model_config: str", "PydanticUserError: `model_config` cannot be used as a model field"),
        ("model_dump: str", "'model_dump' conflicts with member"),
        ("xmin: int", "'xmin' is a system column of every PostgreSQL table; rename the field"),
        ("_id: int", "'_id' begins with an underscore, as only catlog's own columns do"),
    ],
)
def test_record_type_with_a_reserved_field_ends_apply_with_one_line(
    database_url: str, tmp_path: Path, field: str, reason: str
) -> None:
    project = Project(tmp_path, database_url)
    text = YIELDS.replace("id: int", f"id: int\n        {field}")
    if field.startswith("_id"):
        text = YIELDS.replace("id: int", field).replace('key="id"', 'key="_id"')
    project.write("shop/spiders/things.py", text)
    project.write("shop/providers/maker.toml", '[provider]\nname = "maker"\n')
    printed = project.scrapy("apply", code=2)
    assert len(printed.strip().splitlines()) == 1
    assert reason in printed
