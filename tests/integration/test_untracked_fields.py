"""Untracked fields are stored and not compared; rows that no table can hold fail their load."""

import random
from typing import Any

import pytest
from sqlalchemy import Engine

from catlog_scrapy.store.publishing import publish as publishing
from tests.support.factories import (
    an_operation,
    given_a_catalog,
    given_a_scheme,
    given_fields,
    load_records,
    one,
    send_records,
    sql,
    the_catalog,
)

FIELDS = {"id": "text", "price": "numeric", "status": "text", "scraped_at": "timestamptz"}
UNTRACKED = ["status", "scraped_at"]


def a_record(
    status: str = "downloaded", hour: int = 0, price: Any = "12.5", **further: Any
) -> dict[str, Any]:
    at = f"2026-01-28T{hour:02}:00:00Z"
    return {"id": "a", "price": price, "status": status, "scraped_at": at, **further}


@pytest.fixture(params=["record type", "declared"])
def goods(request: pytest.FixtureRequest, engine: Engine) -> Engine:
    """Return an engine of a database with a kind that has untracked fields."""
    given_a_scheme(engine, an_operation())
    foreign = ["goods"] if request.param == "declared" else []
    given_fields(engine, FIELDS, foreign=foreign, untracked=UNTRACKED)
    return engine


def stored(engine: Engine) -> dict[str, Any]:
    [record] = sql(
        engine, "SELECT status, extract(hour FROM scraped_at)::int AS hour FROM records.goods"
    )
    return record


def test_untracked_fields_alone_change_no_record(goods: Engine) -> None:
    load_records(goods, [a_record()])
    for hour in (1, 2):
        loaded = load_records(goods, [a_record("uptodate", hour)])
        assert loaded["published"] == {"received": 1, "duplicates": 0}
    assert one(goods, "SELECT count(*) FROM records.goods_versions") == 0


def test_untracked_fields_keep_the_values_of_the_load_that_wrote_the_state(goods: Engine) -> None:
    load_records(goods, [a_record()])
    load_records(goods, [a_record("uptodate", 1)])
    assert stored(goods) == {"status": "downloaded", "hour": 0}
    assert load_records(goods, [a_record("changed", 2, "13")])["published"]["changed"] == 1
    assert stored(goods) == {"status": "changed", "hour": 2}
    [former] = sql(goods, "SELECT price, status FROM records.goods_versions")
    assert (float(former["price"]), former["status"]) == (12.5, "downloaded")


def test_number_in_another_notation_beside_untracked_fields_changes_no_record(
    goods: Engine,
) -> None:
    load_records(goods, [a_record()])
    loaded = load_records(goods, [a_record("uptodate", 1, "12.50")])
    assert loaded["published"] == {"received": 1, "duplicates": 0, "reformatted": 1}
    assert stored(goods) == {"status": "downloaded", "hour": 0}


def test_fields_that_become_untracked_or_tracked_make_no_history(goods: Engine) -> None:
    load_records(goods, [a_record()])
    for untracked in ([], UNTRACKED[:1], UNTRACKED):
        sql(goods, "UPDATE catlog.kind SET untracked = to_jsonb(CAST(:u AS text[]))", u=untracked)
        published = load_records(goods, [a_record()])["published"]
        assert "changed" not in published
    assert one(goods, "SELECT count(*) FROM records.goods_versions") == 0


def test_undeclared_fields_of_a_declared_kind_can_be_untracked(engine: Engine) -> None:
    given_a_scheme(engine, an_operation())
    given_fields(engine, {"id": "text"}, foreign=["goods"], untracked=["images", "Scraped at"])
    image = {"url": "https://example.com/a.png", "checksum": "x"}

    def load(status: str, colour: str) -> Any:
        images = [{**image, "status": status}]
        item = {"id": "a", "colour": colour, "images": images, "Scraped at": status}
        return load_records(engine, [item])["published"]

    load("downloaded", "red")
    assert load("uptodate", "red") == {"received": 1, "duplicates": 0}
    assert load("uptodate", "blue")["changed"] == 1
    assert one(engine, "SELECT data #>> '{images,0,status}' FROM records.goods") == "uptodate"


def test_removed_record_that_comes_back_has_its_new_untracked_values(goods: Engine) -> None:
    other = {**a_record(), "id": "b"}
    load_records(goods, [a_record(), other])
    load_records(goods, [other])
    loaded = load_records(goods, [a_record("again", 3), other])
    assert loaded["published"]["restored"] == 1
    [record] = sql(goods, "SELECT status FROM records.goods WHERE id = 'a'")
    assert record["status"] == "again"


def fails_to_publish(engine: Engine, record: dict[str, Any]) -> str:
    catalog = given_a_catalog(engine)
    send_records(engine, catalog, [record])
    assert publishing.publish(engine, catalog)
    found = the_catalog(engine, catalog)
    assert found["state"] == "failed"
    return str(found["error"])


def test_record_that_is_too_wide_for_a_page_fails_its_load(engine: Engine) -> None:
    given_a_scheme(engine, an_operation())
    numbers = {f"n{number}": "bigint" for number in range(1100)}
    given_fields(engine, {"id": "text", **numbers})
    assert load_records(engine, [{"id": "a", **dict.fromkeys(numbers)}])["state"] == "loaded"
    error = fails_to_publish(engine, {"id": "a", **dict.fromkeys(numbers, 7)})
    assert "a record that PostgreSQL cannot hold: row is too big" in error


def test_value_that_is_too_long_for_an_index_fails_its_load(engine: Engine) -> None:
    given_a_scheme(engine, an_operation())
    given_fields(engine, {"id": "text", "name": "text"})
    sql(engine, "CREATE INDEX ON records.goods (name)")
    letters = random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=9000)
    error = fails_to_publish(engine, {"id": "a", "name": "".join(letters)})
    assert "a record that PostgreSQL cannot hold: index row" in error
    assert "declare fewer fields or indexes" in error
