"""Browser spiders, tested with saved documents."""

import json
from pathlib import Path
from typing import Any

import pytest
from scrapy import Request
from scrapy.http import TextResponse
from scrapy.settings import Settings

from catlog_scrapy.spiders.sk_load_new import SkLoadNew, roubles

PAGES = Path(__file__).parent.parent / "pages"
URL = "https://samokat.example/"


def read(documents: Any, fault: Exception | None = None) -> TextResponse:
    """Make a response as the browser's download handler does."""
    return TextResponse(URL, request=Request(URL, meta={"documents": documents, "fault": fault}))


def saved() -> Any:
    return json.loads((PAGES / "sk_load_new" / "dairy.json").read_text(encoding="utf-8"))


def test_sk_load_new_items_match_the_golden_result() -> None:
    items = list(SkLoadNew().parse(read(saved())))
    golden = (PAGES / "sk_load_new" / "dairy.items.json").read_text(encoding="utf-8")
    records = [item.record.model_validate(item) for item in items]
    assert [one.model_dump(mode="json") for one in records] == json.loads(golden)
    assert len({(type(one), one.row()[0]) for one in records}) == len(items) == 92


def test_incomplete_showcase_fails_the_load() -> None:
    with pytest.raises(ValueError, match="48 of 90 products were shown: the markup has changed"):
        list(SkLoadNew().parse(read(saved()[:1])))


def test_browser_error_fails_the_load() -> None:
    with pytest.raises(ConnectionError, match="HTTP 500"):
        list(SkLoadNew().parse(read([], ConnectionError("HTTP 500 for it"))))


@pytest.mark.parametrize("field", ["id", "name", "specification", "prices", "inStock", "image"])
def test_product_with_a_renamed_field_does_not_validate(field: str) -> None:
    documents = saved()
    documents[0]["products"][0]["renamed"] = documents[0]["products"][0].pop(field)
    item = list(SkLoadNew().parse(read(documents)))[1]
    with pytest.raises(ValueError, match="validation error"):
        item.record.model_validate(item)


@pytest.mark.parametrize(
    ("kopecks", "price"),
    [(12900, "129.00"), (5, "0.05"), (None, None), ("129", "129"), (True, True), (1.5, 1.5)],
)
def test_kopecks_become_roubles(kopecks: Any, price: Any) -> None:
    assert roubles(kopecks) == price


def test_browser_handlers_apply_only_to_browser_spiders() -> None:
    settings = Settings()
    before = dict(settings.getwithbase("DOWNLOAD_HANDLERS"))
    SkLoadNew.update_settings(settings)
    after = dict(settings.getwithbase("DOWNLOAD_HANDLERS"))
    changed = {scheme for scheme in after if after[scheme] != before.get(scheme)}
    assert changed == {"http", "https"}
    assert dict(Settings().getwithbase("DOWNLOAD_HANDLERS")) == before
