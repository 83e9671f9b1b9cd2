"""Older data never overwrites newer data, in any order of publishing: single cases."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Engine

from catlog_scrapy.store.publishing import publish as publishing
from catlog_scrapy.store.queue import attempts
from tests.support.factories import (
    UNCHANGED,
    an_operation,
    assert_consistent,
    claim_all,
    current,
    deliver,
    given_a_catalog,
    given_a_loaded_catalog,
    given_a_scheme,
    history,
    load,
    publish_again,
    send,
    send_rows,
    the_catalog,
)

UNLIMITED_REMOVALS = {"removed": 1.0}


def published(catalog: Mapping[str, Any]) -> dict[str, int]:
    """Return the counts of a publish, without zeroes."""
    assert catalog["state"] == "loaded", catalog["error"]
    return {name: count for name, count in catalog["published"].items() if count}


def given_goods(engine: Engine, version: int = 1, **columns: Any) -> None:
    given_a_scheme(engine, an_operation(tolerate=UNLIMITED_REMOVALS, **columns), version=version)


def test_stale_catalog_changes_nothing(engine: Engine) -> None:
    given_goods(engine)
    load(engine, {"a": 2, "b": 2}, as_of=2)
    late = load(engine, {"a": 1, "c": 1}, as_of=1)
    assert published(late) == {"received": 2, "stale": 2}
    assert current(engine) == {"a": 2, "b": 2}


def test_a_retry_published_after_a_newer_catalog_changes_nothing(engine: Engine) -> None:
    given_goods(engine)
    first = given_a_catalog(engine, as_of=1)
    [failing] = claim_all(engine, first)
    send(engine, failing, {"a": "half"})
    attempts.fail(engine, failing.attempt, "it broke")
    load(engine, {"a": 2}, as_of=2)
    [again] = claim_all(engine, first)
    assert deliver(engine, again, {"a": 1}) == "done"
    assert publishing.publish_next(engine) == first
    assert current(engine) == {"a": 2}


def test_an_unchanged_value_is_confirmed_by_the_newer_catalog(engine: Engine) -> None:
    """The load of day 3 writes no row for `a`, and still decides when day 2 is published later."""
    given_goods(engine)
    load(engine, {"a": 1}, as_of=1)
    load(engine, {"a": 1}, as_of=3)
    load(engine, {"a": 2}, as_of=2)
    assert current(engine) == {"a": 1}
    assert len(history(engine)) == 1


def test_an_unchanged_value_is_confirmed_by_a_newer_partial_catalog(engine: Engine) -> None:
    given_goods(engine)
    load(engine, {"a": 1, "b": 1}, as_of=1)
    load(engine, {"a": 1}, as_of=3, operation="goods")
    load(engine, {"a": 2, "b": 2}, as_of=2)
    assert current(engine) == {"a": 1, "b": 2}


def test_stale_catalog_does_not_restore_records_removed_by_newer_catalog(engine: Engine) -> None:
    given_goods(engine)
    load(engine, {"a": 1, "b": 1}, as_of=1)
    load(engine, {"b": 1}, as_of=3)
    load(engine, {"a": 2, "b": 1}, as_of=2)
    assert current(engine) == {"b": 1}


def test_stale_full_catalog_removes_only_records_that_no_newer_load_read(engine: Engine) -> None:
    given_goods(engine)
    load(engine, {"a": 1, "b": 1, "c": 1}, as_of=1)
    load(engine, {"b": 3}, as_of=3, operation="goods")
    assert published(load(engine, {"c": 2}, as_of=2)) == {"received": 1, "changed": 1, "removed": 1}
    assert current(engine) == {"b": 3, "c": 2}


def test_partial_catalog_removes_no_records(engine: Engine) -> None:
    given_goods(engine)
    load(engine, {"a": 1, "b": 1}, as_of=1)
    load(engine, {"a": 2}, as_of=2, operation="goods")
    load(engine, {"a": 3}, as_of=3, arguments={"only": "a"})
    assert current(engine) == {"a": 3, "b": 1}


def test_incremental_operation_removes_no_records_and_keeps_their_order(engine: Engine) -> None:
    given_goods(engine, mode="incremental")
    load(engine, {"a": 3, "b": 3}, as_of=3)
    load(engine, {"a": 1, "c": 1}, as_of=1)
    load(engine, {"c": 2}, as_of=2)
    assert current(engine) == {"a": 3, "b": 3, "c": 2}


def test_a_record_that_comes_back_is_restored_with_its_history(engine: Engine) -> None:
    given_goods(engine)
    for as_of, rows in enumerate(({"a": 1, "b": 1}, {"b": 1}, {"a": 1, "b": 1})):
        last = load(engine, rows, as_of=as_of)
    assert published(last) == {"received": 2, "restored": 1}
    of_a = [state for state in history(engine) if state["key"] == "a"]
    assert [(state["value"], state["change"]) for state in of_a] == [(1, "removed"), (1, None)]
    assert_consistent(of_a)


def test_a_key_may_move_from_one_part_to_another(engine: Engine) -> None:
    given_goods(engine, for_each=["north", "south"])
    load(engine, parts={"north": {"a": 1, "b": 1}, "south": {"c": 1}}, as_of=1)
    moved = load(engine, parts={"north": {"b": 1}, "south": {"a": 1, "c": 1}}, as_of=2)
    assert published(moved) == {"received": 3}
    assert len(history(engine)) == 3


def test_records_of_a_vanished_part_are_removed(engine: Engine) -> None:
    given_goods(engine, for_each=["north", "south"])
    load(engine, parts={"north": {"a": 1}, "south": {"b": 1}}, as_of=1)
    given_goods(engine, version=2, for_each=["south"])
    load(engine, parts={"south": {"b": 1}}, as_of=2)
    assert current(engine) == {"b": 1}


def test_new_scheme_version_inherits_records_and_high_water_mark(engine: Engine) -> None:
    given_goods(engine)
    load(engine, {"a": 1, "b": 1}, as_of=2)
    given_goods(engine, version=2)
    load(engine, {"a": 0}, as_of=1)
    assert current(engine) == {"a": 1, "b": 1}
    load(engine, {"b": 1}, as_of=3)
    load(engine, {"a": 2, "b": 2}, as_of=2.5, version=1)
    assert current(engine) == {"b": 1}


def test_renamed_operation_inherits_records_and_high_water_mark(engine: Engine) -> None:
    given_goods(engine)
    load(engine, {"a": 1, "b": 1}, as_of=2)
    wares = an_operation("wares", kinds=["goods"], tolerate=UNLIMITED_REMOVALS)
    given_a_scheme(engine, wares, version=2)
    load(engine, {"a": 0}, as_of=1)
    assert current(engine) == {"a": 1, "b": 1}
    load(engine, {"b": 1}, as_of=3)
    load(engine, {"a": 2, "b": 2}, as_of=2.5, version=1)
    assert current(engine) == {"b": 1}


def test_a_kind_may_move_to_another_operation(engine: Engine) -> None:
    """The former operation must not remove records that it no longer writes."""
    both = an_operation("goods", kinds=["goods", "prices"])
    given_a_scheme(engine, both)
    first = given_a_catalog(engine, as_of=1)
    [claimed] = claim_all(engine, first)
    send(engine, claimed, {"a": 1})
    sent = [("a", 10), ("b", 20)]
    send_rows(engine, claimed.attempt, "prices", sent, first=1)
    attempts.complete(engine, claimed.attempt, attempts.Report(accepted=3))
    assert publishing.publish(engine, first)
    given_a_scheme(engine, an_operation("goods"), an_operation("prices"), version=2)
    split = load(engine, by_operation={"goods": {"a": 1}, "prices": dict(sent)}, as_of=2)
    assert published(split) == {"received": 3}
    assert current(engine, "prices") == {"a": 10, "b": 20}
    assert len(history(engine)) == 3


def test_last_row_of_a_duplicate_key_by_part_and_number_wins(engine: Engine) -> None:
    given_goods(engine, for_each=["north", "south"])
    rows = {"north": [("a", 9), ("b", 1), ("b", 2)], "south": [("a", 1), ("b", UNCHANGED)]}
    assert published(load(engine, parts=rows)) == {"received": 5, "duplicates": 3, "created": 2}
    assert current(engine) == {"a": 1, "b": 2}


def test_unchanged_keeps_a_record_and_its_data(engine: Engine) -> None:
    given_goods(engine)
    load(engine, {"a": 1, "b": 1, "c": 1}, as_of=1)
    load(engine, {"a": UNCHANGED, "b": 2}, as_of=2)
    assert current(engine) == {"a": 1, "b": 2}
    load(engine, {"a": 1, "b": 2, "c": UNCHANGED}, as_of=3)
    assert current(engine) == {"a": 1, "b": 2, "c": 1}


def test_unchanged_for_an_unknown_record_is_refused(engine: Engine) -> None:
    given_goods(engine)
    load(engine, {"a": 1}, as_of=1)
    refused = load(engine, {"a": 2, "b": UNCHANGED}, as_of=2)
    assert refused["state"] == "failed"
    assert "never" in refused["error"]
    assert current(engine) == {"a": 1}


def test_a_catalog_that_would_remove_too_much_fails_and_changes_nothing(engine: Engine) -> None:
    given_a_scheme(engine)
    load(engine, {"a": 1, "b": 1, "c": 1, "d": 1}, as_of=1)
    assert load(engine, {"a": 1, "b": 1}, as_of=2)["state"] == "loaded"
    load(engine, {"a": 1, "b": 1, "c": 1}, as_of=3)
    refused = load(engine, {"c": 2, "e": 2, "f": 2}, as_of=4)
    assert refused["state"] == "failed"
    assert "would remove 2 of 3 records" in refused["error"]
    assert current(engine) == {"a": 1, "b": 1, "c": 1}


def test_second_publish_of_a_catalog_changes_nothing(engine: Engine) -> None:
    given_goods(engine)
    load(engine, {"a": 1, "b": 1}, as_of=1)
    catalog = given_a_loaded_catalog(engine, [("a", 2), ("a", 3), ("c", 1)], as_of=2)
    assert publishing.publish(engine, catalog)
    before = history(engine)
    publish_again(engine, catalog)
    assert history(engine) == before
    assert published(the_catalog(engine, catalog)) == {"received": 3, "duplicates": 1}


def test_row_stored_after_its_attempt_ended_is_not_published(engine: Engine) -> None:
    """A doubled worker of the same attempt is fenced off like a worker of an older attempt."""
    given_goods(engine)
    catalog = given_a_catalog(engine)
    [claimed] = claim_all(engine, catalog)
    assert deliver(engine, claimed, {"a": 1}) == "done"
    send_rows(engine, claimed.attempt, "goods", [("x", 1)], first=1)
    assert publishing.publish(engine, catalog)
    assert current(engine) == {"a": 1}
