"""Older data never overwrites newer data: random histories of loads against a small model."""

import datetime as dt
import itertools
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
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
    given_a_scheme,
    history,
    one,
    publish_again,
    send,
    state_of,
)

UNLIMITED_REMOVALS = {"removed": 1.0}
# The parts of each version. The third renames the operation, the fourth makes it incremental.
PARTS = {1: ["north", "south"], 2: ["south", "west"], 3: [""], 4: [""]}
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Load:
    """Load of a catalog: rows as (part, key, value), with the part modulo the version's parts."""

    version: int
    is_partial: bool
    retried: bool
    rows: list[tuple[int, str, Any]]

    @property
    def is_full(self) -> bool:
        return not self.is_partial and self.version != 4

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
    """Model of the records: the load with the newest as_of decides; a full load lists all keys."""

    statements: dict[int, tuple[bool, dict[str, Any]]] = field(default_factory=dict)
    # Last value of each key that ever had a record.
    known: dict[str, Any] = field(default_factory=dict)

    def publish(self, as_of: int, load: Load) -> bool:
        """Add a load; return False if it yields Unchanged for an unknown key."""
        rows = [row for _, rows in sorted(load.by_part.items()) for row in rows]
        latest = dict(sorted(rows, key=lambda row: row[1] is not UNCHANGED))
        if any(value is UNCHANGED and key not in self.known for key, value in latest.items()):
            return False
        resolved = {k: self.known[k] if v is UNCHANGED else v for k, v in latest.items()}
        self.statements[as_of] = (load.is_full, resolved)
        self.known |= self.now
        return True

    @property
    def now(self) -> dict[str, Any]:
        records: dict[str, Any] = {}
        for _, (is_full, rows) in sorted(self.statements.items()):
            records = rows if is_full else records | rows
        return records


loads = st.builds(
    Load,
    version=st.sampled_from([1, 1, 2, 3, 4]),
    is_partial=st.sampled_from([False, False, True]),
    retried=st.sampled_from([False, False, False, True]),
    rows=st.lists(
        st.tuples(
            st.integers(0, 1), st.sampled_from("abcd"), st.sampled_from([1, 2, 3, UNCHANGED])
        ),
        max_size=7,
    ),
)
# Loads in the order of publishing, each with its as_of.
histories = st.lists(loads, min_size=2, max_size=7).flatmap(
    lambda some: st.permutations(range(len(some))).map(
        lambda days: list(zip(days, some, strict=True))
    )
)


@settings(
    max_examples=60,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(histories)
def test_newest_load_decides_about_each_key(
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
    for time, picture in pictures:
        assert records_at(states, time) == picture
    for catalog in catalogs:
        publish_again(engine, catalog)
    assert history(engine, provider) == states


def given_four_versions(engine: Engine, provider: str) -> None:
    goods = an_operation("goods", kinds=["goods"], tolerate=UNLIMITED_REMOVALS)
    wares = an_operation("wares", kinds=["goods"], tolerate=UNLIMITED_REMOVALS)
    for version, operation in (
        (1, {**goods, "for_each": PARTS[1]}),
        (2, {**goods, "for_each": PARTS[2]}),
        (3, wares),
        (4, {**wares, "mode": "incremental"}),
    ):
        given_a_scheme(engine, operation, provider=provider, version=version)


def given_that_it_loaded(engine: Engine, provider: str, as_of: int, given_load: Load) -> Any:
    """Return a catalog that waits for publishing; a retried load has rows of a failed attempt."""
    catalog = given_a_catalog(
        engine,
        provider=provider,
        version=given_load.version,
        as_of=as_of,
        operation=("wares" if given_load.version > 2 else "goods")
        if given_load.is_partial
        else None,
    )
    if given_load.retried:
        for claimed in claim_all(engine, catalog):
            send(engine, claimed, {"a": "junk", "x": "junk"})
            attempts.fail(engine, claimed.attempt, "it broke")
    for claimed in claim_all(engine, catalog):
        assert deliver(engine, claimed, given_load.by_part[claimed.part]) == "done"
    return catalog


def records_at(states: list[dict[str, Any]], time: dt.datetime) -> dict[str, Any]:
    return {
        state["key"]: state["value"]
        for state in states
        if state["valid_from"] <= time and (state["valid_to"] is None or time < state["valid_to"])
    }
