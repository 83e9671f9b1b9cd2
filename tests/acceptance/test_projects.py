"""Several projects in one database: each runs only its own operations."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from tests.support.project import Project
from tests.support.source import Answer, Source
from tests.support.waiting import rows

SPIDER = """
from catlog_scrapy.records import Record
from scrapy import Request, Spider


class {title}(Record, key="number", view="{name}"):
    number: int


class Spider{title}(Spider):
    name = "{name}"
    record = {title}
    base_url: str = ""

    async def start(self):
        yield Request(self.base_url + "/page")

    def parse(self, response):
        yield {{"number": 1}}
"""
PROVIDER = """
[provider]
name = "{provider}"
base_url = "{url}"
[[scheme]]
name = "{name}"
operations = ["{name}"]
"""


@pytest.fixture
def source() -> Any:
    with Source() as source:
        source.answers["/page"] = Answer(b"[]")
        yield source


def given_a_project(folder: Path, url: str, bot: str, name: str, source: Source) -> Project:
    project = Project(folder, url, CATLOG_PROJECT=bot)
    project.write("shop/spiders/things.py", SPIDER.format(name=name, title=name.title()))
    provider = PROVIDER.format(provider=bot, name=name, url=source.url)
    project.write(f"shop/providers/{bot}.toml", provider)
    project.write(f"shop/views/of_{bot}.sql", f"SELECT count(*) FROM {name}")
    return project


def test_projects_in_one_database_do_not_affect_each_other(
    engine: Engine, database_url: str, tmp_path: Path, source: Source
) -> None:
    one = given_a_project(tmp_path / "one", database_url, "north", "apples", source)
    two = given_a_project(tmp_path / "two", database_url, "south", "pears", source)
    one.scrapy("apply")
    assert "-" not in {line[0] for line in two.scrapy("apply").splitlines()}
    assert "nothing to change" in one.scrapy("apply")
    assert rows(engine, "SELECT name, project FROM catlog.provider ORDER BY 1") == [
        ("north", "north"),
        ("south", "south"),
    ]
    one.write("shop/providers/south.toml", '[provider]\nname = "south"\n')
    assert 'belongs to the project "south"' in one.scrapy("apply", code=2)


def test_view_of_another_project_is_not_replaced(
    engine: Engine, database_url: str, tmp_path: Path, source: Source
) -> None:
    one = given_a_project(tmp_path / "one", database_url, "north", "apples", source)
    two = given_a_project(tmp_path / "two", database_url, "south", "pears", source)
    one.scrapy("apply")
    two.write("shop/views/of_north.sql", "SELECT 1 AS one")
    assert 'the project "north" has a view "of_north"' in two.scrapy("apply", code=2)


def test_worker_leaves_operations_of_other_projects(
    engine: Engine, database_url: str, tmp_path: Path, source: Source
) -> None:
    one = given_a_project(tmp_path / "one", database_url, "north", "apples", source)
    two = given_a_project(tmp_path / "two", database_url, "south", "pears", source)
    for project in (one, two):
        project.scrapy("apply")
    two.scrapy("backfill", "south/pears", "--from", "2026-01-01", "--to", "2026-01-02", code=2)
    queued = "INSERT INTO catlog.catalog (provider_id, scheme_id, origin) SELECT provider_id, id,"
    rows(engine, f"{queued} 'test' FROM catlog.catalog_scheme WHERE name = 'pears' RETURNING id")
    said = one.scrapy("work", "--drain")
    assert "left for another worker: the project here is 'north', not 'south'" in said
    assert rows(engine, "SELECT outcome, error FROM catlog.instance_attempt") == [
        ("released", "refused: the project here is 'north', not 'south'")
    ]
    two.scrapy("work", "--drain")
    assert rows(engine, "SELECT state FROM catlog.catalog") == [("loaded",)]


def test_record_type_that_was_not_applied_is_not_loaded(
    engine: Engine, database_url: str, tmp_path: Path, source: Source
) -> None:
    project = given_a_project(tmp_path, database_url, "north", "apples", source)
    project.scrapy("apply")
    spider = tmp_path / "shop/spiders/things.py"
    spider.write_text(spider.read_text().replace("number: int", 'number: int\n    more: str = ""'))
    said = project.scrapy("load", "north/apples", code=2)
    assert "the record types of the spider 'apples' differ from the applied ones" in said
