"""Publishing compares hashes first, and columns only where the hashes differ."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import orjson
import pytest
from sqlalchemy import Engine, event, exc

from catlog_scrapy.db.engine import make_engine
from catlog_scrapy.records.hashing import content_hash, record_id
from catlog_scrapy.store.publishing import merging, statements
from catlog_scrapy.store.publishing import publish as publishing
from catlog_scrapy.store.queue import attempts, copy_format, results
from tests.support.factories import (
    GONE,
    UNCHANGED,
    an_operation,
    claim_of,
    current,
    given_a_catalog,
    given_a_loaded_catalog,
    given_a_scheme,
    given_fields,
    history,
    load,
    one,
    sql,
    state_of,
    the_catalog,
)

TOLERANT = {"removed": 1.0}
FIELDS = {"id": "text", "price": "numeric", "tags": "jsonb", "lasts": "interval"}
MANY = 60_000


def given_goods(engine: Engine) -> None:
    given_a_scheme(engine, an_operation(tolerate=TOLERANT))


def load_texts(engine: Engine, texts: Mapping[str, str]) -> dict[str, Any]:
    """Load records, each by its JSON text."""
    catalog = given_a_catalog(engine)
    claimed = claim_of(engine, catalog)
    batch = bytearray()
    rows = [("goods", key, text.encode(), None) for key, text in texts.items()]
    prefix = copy_format.RowPrefix(claimed.attempt, claimed.provider_id)
    copy_format.write_rows(batch, prefix, 0, rows)
    results.copy_batch(engine, batch)
    attempts.complete(engine, claimed.attempt, attempts.Report(accepted=len(rows)))
    assert publishing.publish(engine, catalog)
    return the_catalog(engine, catalog)


def given_many(engine: Engine, values: Sequence[Any]) -> UUID:
    """Return a catalog that waits for publishing, with a record for each value."""
    return given_a_loaded_catalog(engine, {str(n): value for n, value in enumerate(values)})


def stored(engine: Engine, columns: str = "*") -> dict[str, Any]:
    [record] = sql(engine, f"SELECT {columns} FROM records.goods")
    return record


def test_record_has_the_hashes_of_its_key_and_content(engine: Engine) -> None:
    given_goods(engine)
    load(engine, {"a": 1})
    provider = one(engine, "SELECT id FROM catlog.provider")
    assert stored(engine, "_id, _hash") == {
        "_id": record_id(provider, "a"),
        "_hash": UUID(bytes=content_hash(b'{"id":"a","value":1}')),
    }


def test_reformatted_record_has_no_history(engine: Engine) -> None:
    given_goods(engine)
    given_fields(engine, FIELDS)
    texts = [
        '{"id":"a","price":"12.5","tags":{"x":1,"y":[2]},"lasts":90.0}',
        '{"id":"a","price":"12.50","tags":{"x":1,"y":[2]},"lasts":90.0}',
        '{"price":"12.50","id":"a","tags":{"y":[2.0],"x":1},"lasts":9e1}',
    ]
    load_texts(engine, {"a": texts[0]})
    before = stored(engine, "_updated_at, _catalog, price")
    for text in texts[1:]:
        loaded = load_texts(engine, {"a": text})
        assert loaded["published"] == {
            "received": 1,
            "duplicates": 0,
            "reformatted": 1,
        }
        assert stored(engine, "_updated_at, _catalog, price") == before
        assert stored(engine, "_hash") == {"_hash": UUID(bytes=content_hash(text.encode()))}
    assert one(engine, "SELECT count(*) FROM records.goods_versions") == 0
    again = load_texts(engine, {"a": texts[-1]})
    assert again["published"] == {"received": 1, "duplicates": 0}
    assert load_texts(engine, {"a": texts[0].replace("90", "91")})["published"]["changed"] == 1


def test_json_becomes_typed_columns(engine: Engine) -> None:
    given_goods(engine)
    given_fields(engine, {**FIELDS, "at": "timestamptz", "on": "boolean", "n": "bigint"})
    text = '{"id":"a","price":"1E+2","tags":null,"lasts":1e-06,"at":"2026-01-01T00:00:00Z","n":7}'
    load_texts(engine, {"a": text})
    record = stored(engine, 'price, tags, lasts::text, at::text, "on", n')
    assert record == {
        "price": 100,
        "tags": None,
        "lasts": "00:00:00.000001",
        "at": "2026-01-01 00:00:00+00",
        "on": None,
        "n": 7,
    }


def test_declared_kind_keeps_undeclared_fields(engine: Engine) -> None:
    given_goods(engine)
    given_fields(engine, {"id": "text", "price": "numeric"}, foreign=["goods"])
    load_texts(engine, {"a": '{"id":"a","price":1,"colour":"red"}'})
    assert stored(engine, "price, data") == {"price": 1, "data": {"colour": "red"}}
    load_texts(engine, {"a": '{"id":"a","price":1,"colour":"blue"}'})
    assert one(engine, "SELECT data ->> 'colour' FROM records.goods_versions") == "red"


def test_value_that_does_not_fit_its_column_fails_the_load(engine: Engine) -> None:
    given_goods(engine)
    given_fields(engine, FIELDS)
    failed = load_texts(engine, {"a": '{"id":"a","price":"cheap"}'})
    assert failed["state"] == "failed"
    assert "invalid input syntax for type numeric" in failed["error"]
    assert one(engine, "SELECT count(*) FROM records.goods") == 0


def test_records_of_two_providers_share_keys_but_not_ids(engine: Engine) -> None:
    for provider in ("acme", "other"):
        given_a_scheme(engine, an_operation(tolerate=TOLERANT), provider=provider)
        load(engine, {"a": provider, "b": provider}, provider=provider)
    load(engine, {"b": "acme"})
    assert current(engine) == {"b": "acme"}
    assert current(engine, provider="other") == {"a": "other", "b": "other"}


def test_slices_give_the_same_result_as_one_statement(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "MAX_COMPARED_ROWS", 7)
    monkeypatch.setattr(merging, "MAX_WRITTEN_ROWS", 3)
    monkeypatch.setattr(statements, "MAX_LISTED_KEYS", 2)
    given_goods(engine)
    load(engine, {str(n): n for n in range(50)})
    rows = [(str(n), n + 1) for n in range(25)] + [(str(n), n) for n in range(25, 45)]
    loaded = load(engine, [*rows, ("new", 1), ("new", 2), ("30", UNCHANGED), ("31", "twice")])
    assert current(engine) == {**dict(rows), "31": "twice", "new": 2}
    assert loaded["published"] == {
        "received": 49,
        "duplicates": 3,
        "changed": 26,
        "removed": 5,
        "created": 1,
    }


@pytest.mark.parametrize("before", [{}, {"other": 1}], ids=["first load", "later load"])
def test_duplicate_keys_of_new_records_are_found(engine: Engine, before: dict[str, int]) -> None:
    given_goods(engine)
    if before:
        load(engine, before)
    rows = [("a", 1), ("a", GONE), ("b", UNCHANGED), ("b", 1), ("b", 2), ("c", GONE), ("other", 1)]
    loaded = load(engine, rows)
    assert loaded["published"]["duplicates"] == 3
    assert current(engine) == {"a": 1, "b": 2, "other": 1}


@pytest.mark.parametrize("before", [{}, {"other": 1}], ids=["first load", "later load"])
@pytest.mark.parametrize("values", [[1, GONE], [GONE, GONE]], ids=["record", "no record"])
def test_duplicate_removal_of_an_unknown_key_is_counted(
    engine: Engine, before: dict[str, int], values: list[Any]
) -> None:
    given_goods(engine)
    if before:
        load(engine, before)
    loaded = load(engine, [*(("a", value) for value in values), ("other", 1)])
    assert loaded["published"]["duplicates"] == 1


def test_publish_writes_no_temporary_files(engine: Engine) -> None:
    given_goods(engine)
    wide = "x" * 500
    for values in (
        [f"{wide}{n}" for n in range(MANY)],
        [f"{wide}{n}" for n in range(MANY)],
        [f"{wide}{n + n % 2}" for n in range(MANY)],
        [f"{wide}{n + 7}" for n in range(MANY // 2)],
    ):
        assert publishing.publish(engine, given_many(engine, values))
    # `current` would write temporary files itself, as it collects all records.
    present = "SELECT count(*) FROM records.goods WHERE _removed_at IS NULL"
    assert one(engine, present) == MANY // 2
    sql(engine, "SELECT pg_stat_clear_snapshot()")
    used = "SELECT temp_bytes FROM pg_stat_database WHERE datname = current_database()"
    assert one(engine, used) == 0


def test_publish_killed_at_any_statement_leaves_nothing(engine: Engine, database_url: str) -> None:
    given_goods(engine)
    load(engine, {"a": 1, "b": 1, "c": 1, "d": GONE})
    before, states = current(engine), history(engine)
    rows = [("a", 2), ("b", 1), ("e", 1), ("e", 2), ("c", UNCHANGED)]
    catalog = given_a_loaded_catalog(engine, rows)
    victim = make_engine(database_url)
    executed, end = 0, 0

    @event.listens_for(victim, "before_cursor_execute")
    def kill(connection: Any, *_: object) -> None:
        nonlocal executed
        executed += 1
        if executed == end:
            pid = connection.connection.driver_connection.info.backend_pid
            sql(engine, "SELECT pg_terminate_backend(:pid, 5000)", pid=pid)

    kills = 0
    while state_of(engine, catalog) != "loaded":
        assert (current(engine), history(engine)) == (before, states)
        executed, end = 0, end + 1
        sql(engine, "UPDATE catlog.catalog SET publish_at = now() WHERE id = :id", id=catalog)
        try:
            publishing.publish(victim, catalog)
        except exc.DBAPIError:
            kills += 1
    assert kills > 10
    assert current(engine) == {"a": 2, "b": 1, "c": 1, "e": 2}
    assert the_catalog(engine, catalog)["published"]["changed"] == 1
    victim.dispose()


def test_result_shows_its_text_key_and_link(engine: Engine) -> None:
    given_goods(engine)
    claimed = claim_of(engine, given_a_catalog(engine))
    batch = bytearray()
    row = ("goods", "a\tb", orjson.dumps({"id": "a\tb"}), "https://example.com/\\x")
    prefix = copy_format.RowPrefix(claimed.attempt, claimed.provider_id)
    copy_format.write_rows(batch, prefix, 0, [row])
    results.copy_batch(engine, batch)
    found = sql(engine, "SELECT key, link FROM catlog.catalog_operation_instance_result")
    assert found == [{"key": "a\tb", "link": "https://example.com/\\x"}]
