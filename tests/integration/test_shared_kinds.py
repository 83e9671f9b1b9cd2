"""Several operations of a provider write one kind, and each answers for its own records."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine

from catlog_scrapy.store.maintenance.reset import reset
from catlog_scrapy.store.publishing import publish as publishing
from catlog_scrapy.store.queue import attempts
from tests.support.factories import (
    GONE,
    UNCHANGED,
    Rows,
    an_operation,
    assert_consistent,
    claim_all,
    current,
    deliver,
    given_a_catalog,
    given_a_scheme,
    history,
    load,
    publish_again,
    sql,
    the_catalog,
)

TOLERANT = {"removed": 1.0}
CITIES = ("kazan", "moscow", "omsk")


def a_city(name: str, **columns: Any) -> dict[str, Any]:
    return an_operation(name, kinds=["goods"], **{"tolerate": TOLERANT, **columns})


def given_cities(engine: Engine, *names: str, version: int = 1, **columns: Any) -> None:
    given_a_scheme(engine, *(a_city(name, **columns) for name in names), version=version)


def given_schemes_of_cities(engine: Engine, *names: str, **columns: Any) -> None:
    for name in names:
        given_a_scheme(engine, a_city(name, **columns), name=name)


def counts(catalog: Mapping[str, Any]) -> dict[str, int]:
    assert catalog["state"] == "loaded", catalog["error"]
    return {name: count for name, count in catalog["published"].items() if count}


def owners(engine: Engine) -> dict[str, str]:
    """Return the operation that answers for each current record."""
    found = sql(engine, "SELECT key, operation FROM catlog.records() WHERE removed_at IS NULL")
    return {record["key"]: record["operation"] for record in found}


def load_in_order(engine: Engine, order: list[str], rows: Mapping[str, Rows]) -> dict[str, Any]:
    """Load a catalog whose operations start in *order*, and return its row."""
    catalog = given_a_catalog(engine)
    claims = {claimed.operation: claimed for claimed in claim_all(engine, catalog)}
    set_reading_order(engine, catalog, order)
    for name, claimed in claims.items():
        assert deliver(engine, claimed, rows.get(name, ())) == "done"
    assert publishing.publish(engine, catalog)
    return the_catalog(engine, catalog)


def set_reading_order(engine: Engine, catalog: UUID, order: list[str]) -> None:
    for name in order:
        sql(
            engine,
            """UPDATE catlog.instance_attempt a SET as_of = catlog.reading_time()
               FROM catlog.catalog_scheme_operation_instance i
               JOIN catlog.catalog_scheme_operation o ON o.id = i.operation_id
               WHERE a.instance_id = i.id AND i.catalog_id = :id AND o.name = :name""",
            id=catalog,
            name=name,
        )


def test_full_load_removes_only_records_of_its_own_operation(engine: Engine) -> None:
    given_schemes_of_cities(engine, "moscow", "omsk")
    load(engine, {"m1": 1, "m2": 1}, scheme="moscow")
    assert counts(load(engine, {"o1": 1}, scheme="omsk")) == {"received": 1, "created": 1}
    assert counts(load(engine, {"m1": 1}, scheme="moscow")) == {"received": 1, "removed": 1}
    assert current(engine) == {"m1": 1, "o1": 1}
    assert owners(engine) == {"m1": "moscow", "o1": "omsk"}


def test_operations_of_one_scheme_keep_each_others_records(engine: Engine) -> None:
    given_cities(engine, *CITIES)
    load(engine, by_operation={"kazan": {"k": 1}, "moscow": {"m": 1}, "omsk": {"o": 1}})
    later = load(engine, by_operation={"kazan": {"k": 1}, "moscow": {"n": 1}, "omsk": {"o": 2}})
    assert counts(later) == {"received": 3, "created": 1, "removed": 1, "changed": 1}
    assert current(engine) == {"k": 1, "n": 1, "o": 2}


def test_key_that_another_operation_brings_moves_to_it(engine: Engine) -> None:
    given_schemes_of_cities(engine, "moscow", "omsk")
    load(engine, {"a": 1, "b": 1, "c": 1}, scheme="moscow")
    taken = load(engine, {"a": 1, "b": 2, "c": UNCHANGED}, scheme="omsk")
    assert counts(taken) == {"received": 3, "changed": 1, "moved": 3}
    assert set(owners(engine).values()) == {"omsk"}
    load(engine, {"m": 1}, scheme="moscow")
    assert current(engine) == {"a": 1, "b": 2, "c": 1, "m": 1}
    assert counts(load(engine, {"b": 2}, scheme="omsk")) == {"received": 1, "removed": 2}


@pytest.mark.parametrize("order", [["kazan", "omsk"], ["omsk", "kazan"]])
@pytest.mark.parametrize(("source", "target"), [("kazan", "omsk"), ("omsk", "kazan")])
def test_key_that_moves_within_a_load_is_neither_removed_nor_restored(
    engine: Engine, order: list[str], source: str, target: str
) -> None:
    given_cities(engine, "kazan", "omsk")
    load_in_order(engine, order, {source: {"a": 1, "b": 1}, target: {"c": 1}})
    moved = load_in_order(engine, order, {source: {"a": 1}, target: {"b": 1, "c": 1}})
    assert counts(moved) == {"received": 3, "moved": 1}
    assert len(history(engine)) == 3
    assert owners(engine)["b"] == target


@pytest.mark.parametrize("order", [["kazan", "omsk"], ["omsk", "kazan"]])
def test_last_reading_of_a_key_decides_among_operations_of_a_load(
    engine: Engine, order: list[str]
) -> None:
    given_cities(engine, "kazan", "omsk")
    rows = {"kazan": {"a": "kazan"}, "omsk": {"a": "omsk"}}
    first = load_in_order(engine, order, rows)
    assert counts(first) == {"received": 2, "created": 1, "duplicates": 1}
    assert current(engine) == {"a": order[1]}
    again = load_in_order(engine, order, rows)
    assert counts(again) == {"received": 2, "duplicates": 1}
    other = load_in_order(engine, order[::-1], rows)
    assert counts(other) == {"received": 2, "duplicates": 1, "changed": 1, "moved": 1}
    states = history(engine)
    assert_consistent(states)
    assert [state["value"] for state in states] == [order[1], order[0]]


def test_data_of_one_operation_beats_other_reports_in_the_same_load(engine: Engine) -> None:
    given_cities(engine, "kazan", "omsk", mode="incremental")
    load(engine, by_operation={"kazan": {"a": 1, "b": 1}, "omsk": {"c": 1}})
    load_in_order(
        engine,
        ["omsk", "kazan"],
        {"kazan": [("a", GONE), ("b", UNCHANGED)], "omsk": {"a": 2, "b": 2}},
    )
    assert current(engine) == {"a": 2, "b": 2, "c": 1}
    assert owners(engine) == {"a": "omsk", "b": "omsk", "c": "omsk"}


def test_removal_counts_only_for_records_of_its_own_operation(engine: Engine) -> None:
    given_schemes_of_cities(engine, "moscow", "omsk", mode="incremental")
    load(engine, {"a": 1}, scheme="moscow")
    load(engine, [("a", GONE), ("o", 1)], scheme="omsk")
    assert current(engine) == {"a": 1, "o": 1}
    load(engine, [("a", GONE), ("m", 1)], scheme="moscow")
    assert current(engine) == {"o": 1, "m": 1}
    assert counts(load(engine, [("a", GONE)], scheme="omsk")) == {"received": 1}


def test_full_load_of_one_operation_makes_no_load_of_another_stale(engine: Engine) -> None:
    given_schemes_of_cities(engine, "moscow", "omsk")
    load(engine, {"m": 1}, scheme="moscow")
    slow = given_a_catalog(engine, scheme="omsk")
    [reads_first] = claim_all(engine, slow)
    load(engine, {"m": 2}, scheme="moscow")
    deliver(engine, reads_first, {"o": 1})
    assert publishing.publish(engine, slow)
    assert current(engine) == {"m": 2, "o": 1}


def test_earlier_reading_takes_no_record_that_a_later_one_confirmed(engine: Engine) -> None:
    given_schemes_of_cities(engine, "moscow", "omsk")
    load(engine, {"a": 1}, scheme="moscow")
    slow = given_a_catalog(engine, scheme="omsk")
    [reads_first] = claim_all(engine, slow)
    load(engine, {"a": 1}, scheme="moscow")
    deliver(engine, reads_first, {"a": 0, "o": 1})
    assert publishing.publish(engine, slow)
    assert current(engine) == {"a": 1, "o": 1}
    assert owners(engine)["a"] == "moscow"


def test_removal_by_one_operation_does_not_hide_what_another_read_before(engine: Engine) -> None:
    given_schemes_of_cities(engine, "moscow", "omsk")
    load(engine, {"a": 1, "m": 1}, scheme="moscow")
    slow = given_a_catalog(engine, scheme="omsk")
    [reads_first] = claim_all(engine, slow)
    load(engine, {"m": 1}, scheme="moscow")
    deliver(engine, reads_first, {"a": 1})
    assert publishing.publish(engine, slow)
    assert current(engine) == {"a": 1, "m": 1}


def test_retried_attempt_of_one_operation_counts_as_read_at_its_retry(engine: Engine) -> None:
    given_cities(engine, "kazan", "omsk")
    load(engine, by_operation={"kazan": {"a": 1}, "omsk": {"o": 1}})
    catalog = given_a_catalog(engine)
    kazan, omsk = claim_all(engine, catalog)
    attempts.fail(engine, kazan.attempt, "the source is away")
    deliver(engine, omsk, {"a": "omsk"})
    [again] = claim_all(engine, catalog)
    deliver(engine, again, {"a": "kazan"})
    assert publishing.publish(engine, catalog)
    assert current(engine) == {"a": "kazan"}


def test_removed_records_are_limited_by_those_of_the_operation(engine: Engine) -> None:
    given_schemes_of_cities(engine, "moscow", "omsk", tolerate={})
    load(engine, {f"m{number}": 1 for number in range(100)}, scheme="moscow")
    load(engine, {"a": 1, "b": 1, "c": 1}, scheme="omsk")
    refused = load(engine, {"a": 1}, scheme="omsk")
    assert "would remove 2 of 3 records" in refused["error"]


def test_renamed_operation_takes_over_the_records_of_the_former_alone(engine: Engine) -> None:
    given_cities(engine, "kazan", "moscow")
    load(engine, by_operation={"kazan": {"k": 1}, "moscow": {"m": 1, "n": 1}})
    given_cities(engine, "kazan", "muscovy", version=2)
    load(engine, {"k": 1}, operation="kazan")
    assert current(engine) == {"k": 1, "m": 1, "n": 1}
    renamed = load(engine, by_operation={"kazan": {"k": 2}, "muscovy": {"m": 1}})
    assert counts(renamed) == {"received": 2, "changed": 1, "removed": 1}
    assert current(engine) == {"k": 2, "m": 1}


def test_records_of_a_removed_operation_go_with_the_next_full_load(engine: Engine) -> None:
    """The removal was declared, so that no limit of another operation applies."""
    given_cities(engine, "kazan", "moscow", tolerate={})
    load(engine, by_operation={"kazan": {"k": 1}, "moscow": {"m": 1, "n": 1, "o": 1}})
    given_cities(engine, "kazan", version=2, tolerate={})
    assert counts(load(engine, {"k": 1})) == {"received": 1, "removed": 3}
    assert current(engine) == {"k": 1}


def test_removed_scheme_leaves_its_records_to_the_others(engine: Engine) -> None:
    given_schemes_of_cities(engine, "moscow", "omsk")
    load(engine, {"m": 1}, scheme="moscow")
    load(engine, {"o": 1}, scheme="omsk")
    sql(
        engine,
        "UPDATE catlog.catalog_scheme SET retired_at = clock_timestamp() WHERE name = 'moscow'",
    )
    assert current(engine) == {"m": 1, "o": 1}
    load(engine, {"o": 1}, scheme="omsk")
    assert current(engine) == {"o": 1}


def test_single_operation_that_is_split_hands_its_records_on(engine: Engine) -> None:
    given_cities(engine, "everything")
    load(engine, {"k": 1, "m": 1, "gone": 1})
    given_cities(engine, "kazan", "moscow", version=2)
    split = load(engine, by_operation={"kazan": {"k": 1}, "moscow": {"m": 1}})
    assert counts(split) == {"received": 2, "removed": 1}
    assert owners(engine) == {"k": "kazan", "m": "moscow"}
    assert len(history(engine)) == 3


def test_second_publish_of_a_load_of_several_operations_changes_nothing(engine: Engine) -> None:
    given_cities(engine, "kazan", "omsk")
    load(engine, by_operation={"kazan": {"a": 1, "b": 1}, "omsk": {"c": 1}})
    moved = load(engine, by_operation={"kazan": {"a": 1}, "omsk": {"b": 2, "a": 2}})
    before, answering = history(engine), owners(engine)
    publish_again(engine, moved["id"])
    assert (history(engine), owners(engine)) == (before, answering)


def test_reset_of_one_operation_keeps_records_and_history_of_the_others(engine: Engine) -> None:
    given_cities(engine, "kazan", "omsk")
    for value in (1, 2):
        load(engine, by_operation={"kazan": {"k": value}, "omsk": {"o": value}})
    done = reset(engine, "acme", "goods", "kazan", dry_run=False)
    assert (done.records, done.versions, done.scopes) == (1, 1, 1)
    assert current(engine) == {"o": 2}
    assert [state["value"] for state in history(engine)] == [1, 2]
    load(engine, by_operation={"kazan": {"k": 3}, "omsk": {"o": 2}})
    assert current(engine) == {"k": 3, "o": 2}
    done = reset(engine, "acme", "goods", dry_run=False)
    assert (done.records, done.versions, done.scopes) == (2, 1, 2)
