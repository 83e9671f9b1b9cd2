"""Conformance of every spider and declaration, and a violation of each rule."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scrapy import Request, Spider

import catlog_scrapy.spiders
from catlog_scrapy.declarations.model import OperationTable, ProviderFile
from catlog_scrapy.declarations.reading import read_providers
from catlog_scrapy.records import Batch, Cursor, Record, Removed, Unchanged
from catlog_scrapy.testing.saved_pages import SavedPage, saved_pages
from tests.support.conformance import (
    modules_of,
    of_pages,
    of_provider,
    of_spider,
    operations_of,
    spiders_of,
)

PAGES = Path(__file__).parents[1] / "pages"
SPIDERS = modules_of(catlog_scrapy.spiders)
FILES, MISTAKES = read_providers(Path(catlog_scrapy.__path__[0]) / "providers")
PROVIDERS = {Path(declared.source.name).stem: declared.file for declared in FILES}
OPERATIONS = [operation for file in PROVIDERS.values() for operation in operations_of(file)]


@pytest.mark.parametrize("name", SPIDERS)
def test_spider_conforms(name: str) -> None:
    (spidercls,) = spiders_of(f"catlog_scrapy.spiders.{name}")
    assert not list(of_spider(spidercls, name, OPERATIONS))


@pytest.mark.parametrize("name", SPIDERS)
def test_saved_pages_of_a_spider_conform(name: str) -> None:
    (spidercls,) = spiders_of(f"catlog_scrapy.spiders.{name}")
    assert not list(of_pages(spidercls, saved_pages(PAGES / name)))


@pytest.mark.parametrize("name", PROVIDERS)
def test_provider_declaration_conforms(name: str) -> None:
    assert not list(of_provider(PROVIDERS[name], name, SPIDERS))


def test_every_declaration_is_valid_and_every_page_folder_has_a_spider() -> None:
    assert not MISTAKES
    assert {folder.name for folder in PAGES.iterdir()} <= set(SPIDERS)


class Leaf(Record, key="name", view="leaves"):
    """Leaf of a tree."""

    name: str
    count: int


class Stem(Record, key="name", view="stems"):
    """Stem of a tree."""

    name: str


class Leaves(Spider):
    """The tree sheds its leaves in autumn. It takes a `day` for each hundred of them."""

    name = "leaves"
    record: Any = Leaf
    base_url: str = ""
    day = ""

    async def start(self) -> Any:
        yield Request(f"{self.base_url}/leaves")

    def parse(self, response: Any) -> Any:
        yield from response.json()


def leaves(**attributes: Any) -> type[Spider]:
    """Return a spider like Leaves with other *attributes*."""
    title = attributes.pop("title", "Leaves")
    return type(title, (Leaves,), {"__doc__": Leaves.__doc__, **attributes})


def test_conforming_spider_has_no_violations() -> None:
    operation = OperationTable(name="autumn", spider="leaves", arguments={"day": "1"})
    assert not list(of_spider(Leaves, "leaves", [operation]))


@pytest.mark.parametrize(
    ("spidercls", "said"),
    [
        (leaves(name="other"), 'it is called "other", its file "leaves"'),
        (leaves(title="LeavesSpider"), "its class is called LeavesSpider"),
        (leaves(record=None), "it has no record type"),
        (leaves(record=(Leaf, dict)), "it has no record type"),
        (leaves(base_url="https://tree.example"), 'its base_url is not ""'),
        (leaves(__doc__=None), "its docstring does not tell"),
        (leaves(__doc__="The leaves of a tree."), "its docstring does not tell"),
        (leaves(__doc__="FILL IN the facts. All of them."), "its docstring does not tell"),
        (leaves(name="stems"), "no provider file has it"),
        (leaves(__doc__="One sentence. Another."), 'says what the argument "day" is'),
    ],
)
def test_violation_of_a_spider_is_reported(spidercls: type[Spider], said: str) -> None:
    operation = OperationTable(name="leaves", arguments={"day": "{due_at}"})
    assert said in "\n".join(of_spider(spidercls, "leaves", [operation]))


def test_unknown_argument_of_a_spider_is_reported() -> None:
    operation = OperationTable(name="leaves", arguments={"hour": "1"})
    said = 'it does not take the argument "hour"'
    assert list(of_spider(Leaves, "leaves", [operation])) == [said]


def provider(**changed: Any) -> ProviderFile:
    """Return the provider file of the fuel network with *changed* tables."""
    table = {"name": "tatneft", "title": "Fuel", "base_url": "http://127.0.0.1:8765/fuel"}
    tables: dict[str, Any] = {
        "scheme": [{"name": "prices", "operations": ["fuel_prices"]}],
        "schedule": [{"name": "daily", "scheme": "prices", "cron": "0 3 * * *"}],
        **changed,
        "provider": {**table, **changed.get("provider", {})},
    }
    return ProviderFile.model_validate(tables)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"provider": {"name": "fuel"}}, 'it is called "fuel", its file "tatneft"'),
        ({"provider": {"title": ""}}, "it has no title"),
        ({"provider": {"base_url": "https://fuel.example"}}, "its base_url is https://fuel"),
        ({"provider": {"base_url": None}}, "its base_url is None"),
        ({"schedule": []}, "it has no schedule"),
        ({"scheme": [{"name": "x", "operations": ["fuel_taxes"]}]}, 'no spider "fuel_taxes"'),
        (
            {"scheme": [{"name": "x", "operation": [{"name": "x", "spider": "fuel_taxes"}]}]},
            'no spider "fuel_taxes"',
        ),
    ],
)
def test_violation_of_a_provider_is_reported(changed: dict[str, Any], said: str) -> None:
    assert not list(of_provider(provider(), "tatneft", SPIDERS))
    assert said in "\n".join(of_provider(provider(**changed), "tatneft", SPIDERS))


ITEMS = [{"name": "oak", "count": 1}, {"name": "ash", "count": 2}]


@pytest.fixture
def given(tmp_path: Path) -> Callable[..., list[SavedPage]]:
    """Return a function that saves `leaves.json` and its golden result, unless None."""

    def make(page: Any, golden: Any = ITEMS, asked: Any = None) -> list[SavedPage]:
        for suffix, what in (("", page), (".items", golden), (".request", asked)):
            if what is not None:
                (tmp_path / f"leaves{suffix}.json").write_text(json.dumps(what))
        return saved_pages(tmp_path)

    return make


@pytest.mark.parametrize(
    ("page", "golden", "asked", "said"),
    [
        (None, None, None, "no saved page with a golden result"),
        (ITEMS, None, None, "no saved page with a golden result"),
        ([], [], None, "gives no items"),
        (ITEMS, [], None, "is empty, and the page gives 2 items"),
        ([], ITEMS, None, "gives other items than its golden result"),
        (ITEMS[::-1], ITEMS, None, "gives other items than its golden result"),
        ([*ITEMS, ITEMS[0]], ITEMS, None, "gives two leaves with the key oak"),
        ([{"name": "oak"}], ITEMS, None, "count\n  Field required"),
        ([{**ITEMS[0], "colour": "red"}], ITEMS, None, "Extra inputs"),
        ([{**ITEMS[0], "name": ""}], ITEMS, None, "the key is missing"),
        (ITEMS, ITEMS, {"call": "parse"}, "Extra inputs"),
    ],
)
def test_violation_of_a_saved_page_is_reported(
    given: Any, page: Any, golden: Any, asked: Any, said: str
) -> None:
    assert said in "\n".join(of_pages(Leaves, given(page, golden, asked)))


def test_spider_of_a_saved_page_has_its_project_settings(given: Any) -> None:
    def parse(self: Spider, response: Any) -> Any:
        yield {"name": self.settings["BOT_NAME"], "count": self.settings["DEPTH_LIMIT"]}

    spidercls = leaves(parse=parse, custom_settings={"DEPTH_LIMIT": 7})
    before = dict(os.environ)
    assert not list(of_pages(spidercls, given([], [{"name": "catlog_scrapy", "count": 7}])))
    assert dict(os.environ) == before


def test_golden_result_has_items_only(given: Any) -> None:
    def parse(self: Spider, response: Any) -> Any:
        yield Unchanged("elm")
        yield Removed("fir")
        yield Request(response.url)
        yield Batch(response.json())
        yield Cursor("2026")

    assert not list(of_pages(leaves(parse=parse), given(ITEMS)))


def test_saved_page_declares_its_request(given: Any) -> None:
    async def parse_day(self: Any, response: Any, tree: str) -> Any:
        yield {"name": f"{tree} {self.day} {response.url}", "count": response.meta["count"]}

    asked = {
        "url": "https://tree.example/day",
        "callback": "parse_day",
        "cb_kwargs": {"tree": "oak"},
        "meta": {"count": 3},
        "arguments": {"day": "monday"},
    }
    golden = [{"name": "oak monday https://tree.example/day", "count": 3}]
    assert not list(of_pages(leaves(parse_day=parse_day), given([], golden, asked)))


def test_saved_page_may_hold_documents_of_a_browser(given: Any) -> None:
    def items(self: Any, documents: list[Any]) -> Any:
        for document in documents:
            yield from document

    asked = {"callback": "items", "documents": True}
    documents = [ITEMS[:1], ITEMS[1:]]
    assert not list(of_pages(leaves(items=items, parse=None), given(documents, ITEMS, asked)))


def test_saved_page_of_several_record_types(given: Any) -> None:
    def parse(self: Spider, response: Any) -> Any:
        for item in response.json():
            yield Leaf.draft(**item)
            yield Stem.draft(name=item["name"])

    spidercls = leaves(record=(Leaf, Stem), parse=parse)
    golden = [ITEMS[0], {"name": "oak"}, ITEMS[1], {"name": "ash"}]
    assert not list(of_pages(spidercls, given(ITEMS, golden)))
    plain = leaves(record=(Leaf, Stem))
    assert "an item without its type" in "".join(of_pages(plain, given(ITEMS)))


def test_saved_page_of_a_spider_without_start_requests(given: Any) -> None:
    async def start(self: Spider) -> Any:
        yield ITEMS[0]

    pages = given(ITEMS)
    assert "starts with no request" in "".join(of_pages(leaves(start=start), pages))
    pages = given(ITEMS, ITEMS, {"url": "https://tree.example/"})
    assert not list(of_pages(leaves(start=start), pages))
