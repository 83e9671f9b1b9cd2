"""Grocery delivery of the demo: stable bytes per step, complete showcases, changes."""

import json
from itertools import pairwise
from urllib.request import urlopen

import pytest

from catlog_scrapy.demo import samokat
from catlog_scrapy.demo.server import DemoServer


def documents(server: DemoServer, showcase: str) -> list[dict[str, object]]:
    """Return the documents that the page requests after a click."""
    found = []
    for page in range(1, samokat.pages(showcase) + 1):
        url = f"{server.url}/samokat/v2/showcases/{showcase}?page={page}"
        with urlopen(url) as response:
            found.append(json.load(response))
    return found


@pytest.mark.parametrize("showcase", samokat.SHOWCASES)
def test_showcase_is_complete_and_stable(showcase: str) -> None:
    with DemoServer() as one, DemoServer() as other:
        assert documents(one, showcase) == documents(other, showcase)
        shown = [product for found in documents(one, showcase) for product in found["products"]]
    assert shown == samokat.products(showcase)
    assert len({product["id"] for product in shown}) == samokat.SIZES[showcase] == len(shown)


def test_change_of_a_showcase_adds_and_removes_a_product_and_changes_prices() -> None:
    for before, after in pairwise(
        {one["id"]: one["prices"] for one in samokat.products("new", step)} for step in range(12)
    ):
        assert len(after.keys() - before.keys()) == len(before.keys() - after.keys()) == 1
        kept = before.keys() & after.keys()
        assert 0 < sum(before[id_] != after[id_] for id_ in kept) < len(kept) / 4


def test_change_of_a_showcase_renews_the_hashes_of_css_classes() -> None:
    with DemoServer() as server, urlopen(f"{server.url}/samokat/") as response:
        before = response.read()
        server.change()
        with urlopen(f"{server.url}/samokat/category/new") as changed:
            after = changed.read()
    assert before != after
    assert b"CategoryLink_root__" in before
    assert b"CategoryLink_root__" in after
