"""Older data never overwrites newer, in whatever order catalogs are published.

First the property, against a model of twenty lines; then its cases one by one, to be read.
"""

import datetime as dt
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from catlog_scrapy.store import attempts, publishing
from tests.factories import (
    UNCHANGED,
    an_operation,
    claim_all,
    current,
    deliver,
    given_a_catalog,
    given_a_loaded_catalog,
    given_a_scheme,
    history,
    load,
    one,
    send,
    send_lines,
    sql,
    state_of,
    the_catalog,
)

ALL_MAY_GO = {"removed": 1.0}
# The parts of each version. The third renames the operation, the fourth makes it incremental.
PARTS = {1: ["north", "south"], 2: ["south", "west"], 3: [""], 4: [""]}
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Load:
    """One catalog: rows as (part, key, value), the part counted round those of its version."""

    version: int
    narrowed: bool
    retried: bool
    rows: list[tuple[int, str, Any]]

    @property
    def whole(self) -> bool:
        return not self.narrowed and self.version != 4

    @property
    def by_part(self) -> dict[str, list[tuple[str, Any]]]:
        parts = PARTS[self.version]
        return {
            name: [
                (key, value) for part, key, value in self.rows if parts[part % len(parts)] == name
            ]
            for name in parts
        }


@dataclass
class Model:
    """For each key the statement with the newest as_of decides; a whole load states all keys."""

    statements: dict[int, tuple[bool, dict[str, Any]]] = field(default_factory=dict)
    # What each key was when it last was a record.
    known: dict[str, Any] = field(default_factory=dict)

    def publish(self, as_of: int, load: Load) -> bool:
        """Take the load in; False for one that takes a key for unchanged that never was."""
        rows = [row for _, rows in sorted(load.by_part.items()) for row in rows]
        said = dict(sorted(rows, key=lambda row: row[1] is not UNCHANGED))
        if any(value is UNCHANGED and key not in self.known for key, value in said.items()):
            return False
        resolved = {k: self.known[k] if v is UNCHANGED else v for k, v in said.items()}
        self.statements[as_of] = (load.whole, resolved)
        self.known |= self.now
        return True

    @property
    def now(self) -> dict[str, Any]:
        said: dict[str, Any] = {}
        for _, (whole, rows) in sorted(self.statements.items()):
            said = rows if whole else said | rows
        return said


loads = st.builds(
    Load,
    version=st.sampled_from([1, 1, 2, 3, 4]),
    narrowed=st.sampled_from([False, False, True]),
    retried=st.sampled_from([False, False, False, True]),
    rows=st.lists(
        st.tuples(
            st.integers(0, 1), st.sampled_from("abcd"), st.sampled_from([1, 2, 3, UNCHANGED])
        ),
        max_size=7,
    ),
)
# In the order of publishing, each with its as_of.
histories = st.lists(loads, min_size=2, max_size=7).flatmap(
    lambda some: st.permutations(range(len(some))).map(
        lambda days: list(zip(days, some, strict=True))
    )
)


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(histories)
def test_the_newest_statement_about_a_key_decides(
    engine: Engine, published: list[tuple[int, Load]]
) -> None:
    provider = f"acme_{next(_numbers)}"
    given_four_versions(engine, provider)
    model = Model()
    pictures: list[tuple[dt.datetime, dict[str, Any]]] = []
    catalogs = []
    for as_of, given_load in published:
        catalog = given_that_it_loaded(engine, provider, as_of, given_load)
        assert publishing.publish(engine, catalog)
        accepted = model.publish(as_of, given_load)
        assert current(engine, provider=provider) == model.now
        if accepted:
            assert state_of(engine, catalog) == "loaded"
            catalogs.append(catalog)
        pictures.append((one(engine, "SELECT clock_timestamp()"), model.now))
    states = history(engine, provider)
    assert_consistent(states)
    for moment, picture in pictures:
        assert seen_at(states, moment) == picture
    for catalog in catalogs:
        publish_again(engine, catalog)
    assert history(engine, provider) == states


def given_four_versions(engine: Engine, provider: str) -> None:
    goods = an_operation("goods", kinds=["goods"], tolerate=ALL_MAY_GO)
    wares = an_operation("wares", kinds=["goods"], tolerate=ALL_MAY_GO)
    for version, operation in (
        (1, {**goods, "for_each": PARTS[1]}),
        (2, {**goods, "for_each": PARTS[2]}),
        (3, wares),
        (4, {**wares, "mode": "incremental"}),
    ):
        given_a_scheme(engine, operation, provider=provider, version=version)


def given_that_it_loaded(engine: Engine, provider: str, as_of: int, given_load: Load) -> Any:
    """A catalog that waits to be published; a retried one left rows of an attempt that failed."""
    catalog = given_a_catalog(
        engine,
        provider=provider,
        version=given_load.version,
        as_of=as_of,
        operation=("wares" if given_load.version > 2 else "goods") if given_load.narrowed else None,
    )
    if given_load.retried:
        for claimed in claim_all(engine, catalog):
            send(engine, claimed, {"a": "junk", "x": "junk"})
            attempts.fail(engine, claimed.attempt, "it broke")
    for claimed in claim_all(engine, catalog):
        assert deliver(engine, claimed, given_load.by_part[claimed.part]) == "done"
    return catalog


def assert_consistent(states: list[dict[str, Any]]) -> None:
    """The states of a key do not overlap, none is empty, and only the last one may be current."""
    for _, group in itertools.groupby(states, lambda state: (state["kind"], state["key"])):
        of_one = list(group)
        assert all(state["valid_from"] < state["valid_to"] for state in of_one[:-1])
        last = of_one[-1]
        assert last["valid_to"] is None or (
            last["valid_from"] < last["valid_to"] and last["change"] == "removed"
        )
        for former, latter in itertools.pairwise(of_one):
            assert former["valid_to"] <= latter["valid_from"]
            if former["change"] == "changed":
                assert former["valid_to"] == latter["valid_from"]
                assert former["value"] != latter["value"]


def seen_at(states: list[dict[str, Any]], moment: dt.datetime) -> dict[str, Any]:
    return {
        state["key"]: state["value"]
        for state in states
        if state["valid_from"] <= moment
        and (state["valid_to"] is None or moment < state["valid_to"])
    }


def publish_again(engine: Engine, catalog: Any) -> None:
    """As after a crash of the publisher that nobody is sure of."""
    assert not publishing.publish(engine, catalog)
    sql(engine, "UPDATE catlog.catalog SET state = 'publishing' WHERE id = :id", id=catalog)
    assert publishing.publish(engine, catalog)


def published(catalog: Mapping[str, Any]) -> dict[str, int]:
    """What publishing counted, without zeroes."""
    assert catalog["state"] == "loaded", catalog["error"]
    return {name: count for name, count in catalog["published"].items() if count}


def given_goods(engine: Engine, version: int = 1, **columns: Any) -> None:
    given_a_scheme(engine, an_operation(tolerate=ALL_MAY_GO, **columns), version=version)


def test_a_late_catalog_changes_nothing(engine: Engine) -> None:
    given_goods(engine)
    load(engine, {"a": 2, "b": 2}, as_of=2)
    late = load(engine, {"a": 1, "c": 1}, as_of=1)
    assert published(late) == {"seen": 2, "late": 2}
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
    """That `a` was 1 on day 3 too is not written, and yet known when day 2 comes in late."""
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


def test_what_a_newer_catalog_removed_is_not_revived_by_a_late_one(engine: Engine) -> None:
    given_goods(engine)
    load(engine, {"a": 1, "b": 1}, as_of=1)
    load(engine, {"b": 1}, as_of=3)
    load(engine, {"a": 2, "b": 1}, as_of=2)
    assert current(engine) == {"b": 1}


def test_a_late_whole_catalog_removes_only_what_no_newer_load_has_seen(engine: Engine) -> None:
    given_goods(engine)
    load(engine, {"a": 1, "b": 1, "c": 1}, as_of=1)
    load(engine, {"b": 3}, as_of=3, operation="goods")
    assert published(load(engine, {"c": 2}, as_of=2)) == {"seen": 1, "changed": 1, "removed": 1}
    assert current(engine) == {"b": 3, "c": 2}


def test_a_partial_catalog_removes_nothing(engine: Engine) -> None:
    given_goods(engine)
    load(engine, {"a": 1, "b": 1}, as_of=1)
    load(engine, {"a": 2}, as_of=2, operation="goods")
    load(engine, {"a": 3}, as_of=3, arguments={"only": "a"})
    assert current(engine) == {"a": 3, "b": 1}


def test_an_incremental_operation_removes_nothing_and_its_order_is_kept(engine: Engine) -> None:
    given_goods(engine, mode="incremental")
    load(engine, {"a": 3, "b": 3}, as_of=3)
    load(engine, {"a": 1, "c": 1}, as_of=1)
    load(engine, {"c": 2}, as_of=2)
    assert current(engine) == {"a": 3, "b": 3, "c": 2}


def test_a_record_that_comes_back_is_revived_with_its_history(engine: Engine) -> None:
    given_goods(engine)
    for as_of, rows in enumerate(({"a": 1, "b": 1}, {"b": 1}, {"a": 1, "b": 1})):
        last = load(engine, rows, as_of=as_of)
    assert published(last) == {"seen": 2, "revived": 1}
    of_a = [state for state in history(engine) if state["key"] == "a"]
    assert [(state["value"], state["change"]) for state in of_a] == [(1, "removed"), (1, None)]
    assert_consistent(of_a)


def test_a_key_may_move_from_one_part_to_another(engine: Engine) -> None:
    given_goods(engine, for_each=["north", "south"])
    load(engine, parts={"north": {"a": 1, "b": 1}, "south": {"c": 1}}, as_of=1)
    moved = load(engine, parts={"north": {"b": 1}, "south": {"a": 1, "c": 1}}, as_of=2)
    assert published(moved) == {"seen": 3}
    assert len(history(engine)) == 3


def test_what_a_part_had_that_no_longer_exists_is_removed(engine: Engine) -> None:
    given_goods(engine, for_each=["north", "south"])
    load(engine, parts={"north": {"a": 1}, "south": {"b": 1}}, as_of=1)
    given_goods(engine, version=2, for_each=["south"])
    load(engine, parts={"south": {"b": 1}}, as_of=2)
    assert current(engine) == {"b": 1}


def test_a_new_version_inherits_records_and_mark(engine: Engine) -> None:
    given_goods(engine)
    load(engine, {"a": 1, "b": 1}, as_of=2)
    given_goods(engine, version=2)
    load(engine, {"a": 0}, as_of=1)
    assert current(engine) == {"a": 1, "b": 1}
    load(engine, {"b": 1}, as_of=3)
    load(engine, {"a": 2, "b": 2}, as_of=2.5, version=1)
    assert current(engine) == {"b": 1}


def test_a_renamed_operation_inherits_records_and_mark(engine: Engine) -> None:
    given_goods(engine)
    load(engine, {"a": 1, "b": 1}, as_of=2)
    wares = an_operation("wares", kinds=["goods"], tolerate=ALL_MAY_GO)
    given_a_scheme(engine, wares, version=2)
    load(engine, {"a": 0}, as_of=1)
    assert current(engine) == {"a": 1, "b": 1}
    load(engine, {"b": 1}, as_of=3)
    load(engine, {"a": 2, "b": 2}, as_of=2.5, version=1)
    assert current(engine) == {"b": 1}


def test_a_kind_may_move_to_another_operation(engine: Engine) -> None:
    """What the former operation no longer writes is not its to remove."""
    both = an_operation("goods", kinds=["goods", "prices"])
    given_a_scheme(engine, both)
    first = given_a_catalog(engine, as_of=1)
    [claimed] = claim_all(engine, first)
    send(engine, claimed, {"a": 1})
    sent = [("a", 10), ("b", 20)]
    send_lines(engine, claimed.attempt, "prices", sent, first=1)
    attempts.complete(engine, claimed.attempt, attempts.Report(accepted=3))
    assert publishing.publish(engine, first)
    given_a_scheme(engine, an_operation("goods"), an_operation("prices"), version=2)
    split = load(engine, by_operation={"goods": {"a": 1}, "prices": dict(sent)}, as_of=2)
    assert published(split) == {"seen": 3}
    assert current(engine, "prices") == {"a": 10, "b": 20}
    assert len(history(engine)) == 3


def test_a_key_twice_in_a_catalog_the_last_by_part_and_number_wins(engine: Engine) -> None:
    given_goods(engine, for_each=["north", "south"])
    rows = {"north": [("a", 9), ("b", 1), ("b", 2)], "south": [("a", 1), ("b", UNCHANGED)]}
    assert published(load(engine, parts=rows)) == {"seen": 5, "duplicates": 3, "created": 2}
    assert current(engine) == {"a": 1, "b": 2}


def test_unchanged_keeps_a_record_and_its_data(engine: Engine) -> None:
    given_goods(engine)
    load(engine, {"a": 1, "b": 1, "c": 1}, as_of=1)
    load(engine, {"a": UNCHANGED, "b": 2}, as_of=2)
    assert current(engine) == {"a": 1, "b": 2}
    load(engine, {"a": 1, "b": 2, "c": UNCHANGED}, as_of=3)
    assert current(engine) == {"a": 1, "b": 2, "c": 1}


def test_unchanged_for_what_was_never_loaded_is_refused(engine: Engine) -> None:
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


def test_publishing_twice_changes_nothing(engine: Engine) -> None:
    given_goods(engine)
    load(engine, {"a": 1, "b": 1}, as_of=1)
    catalog = given_a_loaded_catalog(engine, [("a", 2), ("a", 3), ("c", 1)], as_of=2)
    assert publishing.publish(engine, catalog)
    before = history(engine)
    publish_again(engine, catalog)
    assert history(engine) == before
    assert published(the_catalog(engine, catalog)) == {"seen": 3, "duplicates": 1}


def test_a_row_that_comes_after_the_end_of_its_attempt_is_not_published(engine: Engine) -> None:
    """A doubled worker of the same attempt is as fenced as one of an older."""
    given_goods(engine)
    catalog = given_a_catalog(engine)
    [claimed] = claim_all(engine, catalog)
    assert deliver(engine, claimed, {"a": 1}) == "done"
    send_lines(engine, claimed.attempt, "goods", [("x", 1)], first=1)
    assert publishing.publish(engine, catalog)
    assert current(engine) == {"a": 1}
