"""Data is as old as its reading: random interleavings of loads against a small model.

Loads overlap, parts of them are retried later, keys move between parts and operations, a part
leaves `for_each`, and the server's clock jumps. Two operations write the kind.

    MODEL_EXAMPLES=500 MODEL_SEED=7 python -m pytest -k latest_reading_decides
"""

import copy
import datetime as dt
import itertools
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import UUID

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from catlog_scrapy.store.publishing import publish as publishing
from catlog_scrapy.store.queue import attempts
from catlog_scrapy.store.queue.claims import Claim
from tests.support.clock import Clock
from tests.support.factories import (
    GONE,
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
    send,
    sql,
    state_of,
)

EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "60"))
SEED = os.environ.get("MODEL_SEED")
OPERATIONS = ("goods", "wares")
# A load is claimed, perhaps retried, and published.
STEPS = 3
# Jumps of the clock: ahead, back, and right again.
JUMPS = {-1: dt.timedelta(days=1), -2: dt.timedelta(hours=-1), -3: dt.timedelta(0)}
NEVER = -1
_numbers = itertools.count(1)


class Place(NamedTuple):
    """Instance of a load: an operation, and its part."""

    operation: str
    part: str = ""


@dataclass(frozen=True)
class Version:
    """Version of the scheme: the mode of each operation, and the parts of `goods`."""

    modes: Mapping[str, str]
    parts: tuple[str, ...] = ("x", "y")

    @property
    def places(self) -> list[Place]:
        return [*(Place("goods", part) for part in self.parts), Place("wares")]


VERSIONS = {
    1: Version({"goods": "snapshot", "wares": "snapshot"}),
    2: Version({"goods": "incremental", "wares": "incremental"}),
    3: Version({"goods": "incremental", "wares": "snapshot"}, parts=("x",)),
}
PLACES = VERSIONS[1].places


@dataclass(frozen=True)
class Plan:
    """Load to be made, of `only` one operation or all, and the places that fail at first."""

    version: int
    only: str | None
    rows: list[tuple[Place, str, Any]]
    failing: frozenset[Place]

    @property
    def places(self) -> list[Place]:
        places = VERSIONS[self.version].places
        return [place for place in places if self.only in (None, place.operation)]

    def rows_of(self, place: Place) -> list[tuple[str, Any]]:
        return [(key, value) for at, key, value in self.rows if at == place]


@dataclass
class Running:
    """Load that is under way: its claims by place, and the position of each reading in time."""

    catalog: UUID
    claims: dict[Place, Claim]
    read: dict[Place, int]


class Row(NamedTuple):
    """Row of a load, with the time of its reading."""

    key: str
    value: Any
    place: Place
    time: int

    @property
    def rank(self) -> tuple[bool, int]:
        """Rank among the rows of other operations: data before Unchanged, then the last."""
        return (self.value is not UNCHANGED, self.time)


@dataclass
class Thing:
    """Record: the place that wrote it last, and when."""

    place: Place
    time: int
    value: Any
    is_present: bool


class Refused(Exception):
    """The load yields Unchanged for a key that has never had a record."""


@dataclass
class OperationLoad:
    """Share of an operation in a load; `elsewhere` are the keys that other operations bring."""

    operation: str
    read: dict[Place, int]
    rows: list[Row]
    removes: bool
    leaves: bool
    kept: dict[str, Row] = field(default_factory=dict)
    elsewhere: set[str] = field(default_factory=set)

    @property
    def earliest(self) -> int:
        return min(self.read.values())

    def keep(self, rivals: Iterable[Row], things: Mapping[str, Thing]) -> None:
        """Choose the row of each key, unless a rival row decides about the key.

        Of several removals, that by the place of the record counts.
        """
        best = {row.key: row for row in sorted(rivals, key=lambda row: row.rank)}
        self.elsewhere = set(best)
        kept = [
            row
            for row in self.rows
            if row.key not in best or (row.value is not GONE and row.rank > best[row.key].rank)
        ]
        ranks = {id(UNCHANGED): 2, id(GONE): 0}
        owned = {(key, thing.place) for key, thing in things.items()}
        kept.sort(
            key=lambda row: (
                ranks.get(id(row.value), 3) + (row.value is GONE and (row.key, row.place) in owned)
            )
        )
        self.kept = {row.key: row for row in kept}


@dataclass
class Model:
    """Last writer wins, by the time of reading; absence is as old as the load's first reading.

    Each operation answers for the records that it wrote last. Marks are the times up to which full
    loads have confirmed the records of an operation or place.
    """

    things: dict[str, Thing] = field(default_factory=dict)
    marks: dict[str, int] = field(default_factory=dict)
    place_marks: dict[Place, int] = field(default_factory=dict)
    full_loads: list[int] = field(default_factory=list)

    def publish(self, plan: Plan, read: dict[Place, int]) -> "Model":
        """Return the model after a load. Raises Refused."""
        after = copy.deepcopy(self)
        operations = dict.fromkeys(place.operation for place in plan.places)
        loads = [self._share(plan, operation, read) for operation in operations]
        for load in loads:
            rivals = (row for other in loads if other is not load for row in other.rows)
            load.keep((row for row in rivals if row.value is not GONE), self.things)
        for load in loads:
            after._merge(load, confirmed=self._confirmed)
        for load in loads:
            if load.removes:
                after._set_marks(load)
        if plan.only is None:
            after.full_loads.append(min(read.values()))
        return after

    def _share(self, plan: Plan, operation: str, read: dict[Place, int]) -> OperationLoad:
        mark = self.marks.get(operation, NEVER)
        own = {place: read[place] for place in plan.places if place.operation == operation}
        fresh = [place for place in own if own[place] >= mark]
        rows = [
            Row(key, value, place, own[place])
            for place in fresh
            for key, value in plan.rows_of(place)
        ]
        is_full = plan.only is None
        is_snapshot = VERSIONS[plan.version].modes[operation] == "snapshot"
        earliest = min(own.values())
        return OperationLoad(
            operation,
            own,
            rows,
            removes=is_full and is_snapshot and len(fresh) == len(own),
            leaves=is_full
            and operation == "goods"
            and mark <= earliest
            and not any(time > earliest for time in self.full_loads),
        )

    def _confirmed(self, thing: Thing) -> int:
        if not thing.is_present:
            return thing.time
        marks = (
            self.marks.get(thing.place.operation, NEVER),
            self.place_marks.get(thing.place, NEVER),
        )
        return max(thing.time, *marks)

    def _merge(self, load: OperationLoad, *, confirmed: Callable[[Thing], int]) -> None:
        for key, thing in self.things.items():
            is_own = thing.place.operation == load.operation and thing.is_present
            left = load.leaves and thing.place not in load.read
            if key in load.kept or key in load.elsewhere or not is_own:
                continue
            if (load.removes or left) and confirmed(thing) <= load.earliest:
                self._remove(thing, load.earliest)
        for row in load.kept.values():
            self._apply(load, row, confirmed=confirmed)

    def _apply(self, load: OperationLoad, row: Row, *, confirmed: Callable[[Thing], int]) -> None:
        thing = self.things.get(row.key)
        if thing is None:
            if row.value is UNCHANGED:
                raise Refused
            if row.value is not GONE or not load.removes:
                value = UNCHANGED if row.value is GONE else row.value
                self.things[row.key] = Thing(row.place, row.time, value, row.value is not GONE)
        elif thing.place.operation != load.operation:
            if row.value is not GONE and (not thing.is_present or row.time >= confirmed(thing)):
                self._take(thing, row)
        elif row.time < confirmed(thing):
            return
        elif row.value is not GONE:
            self._take(thing, row)
        elif not thing.is_present:
            thing.time = thing.time if load.removes else row.time
        elif thing.place == row.place:
            self._remove(thing, row.time)
        elif load.removes and confirmed(thing) <= load.earliest:
            self._remove(thing, load.earliest)

    def _take(self, thing: Thing, row: Row) -> None:
        if row.value is not UNCHANGED:
            thing.value = row.value
        elif thing.value is UNCHANGED:
            raise Refused
        thing.place, thing.time, thing.is_present = row.place, row.time, True

    def _remove(self, thing: Thing, time: int) -> None:
        thing.time, thing.is_present = time, False

    def _set_marks(self, load: OperationLoad) -> None:
        self.marks[load.operation] = load.earliest
        for place, time in load.read.items():
            self.place_marks[place] = max(time, self.place_marks.get(place, NEVER))

    @property
    def now(self) -> dict[str, Any]:
        return {key: thing.value for key, thing in self.things.items() if thing.is_present}


plans = st.builds(
    Plan,
    version=st.sampled_from([1, 1, 2, 3]),
    only=st.sampled_from([None, None, None, *OPERATIONS]),
    rows=st.lists(
        st.tuples(
            st.sampled_from(PLACES),
            st.sampled_from("abc"),
            st.sampled_from([1, 2, 3, UNCHANGED, GONE]),
        ),
        max_size=8,
    ),
    failing=st.frozensets(st.sampled_from(PLACES)),
)
# Loads and the order of their steps: each load's number three times, and jumps of the clock.
histories = st.lists(plans, min_size=2, max_size=4).flatmap(
    lambda some: st.tuples(
        st.just(some), st.permutations([*[*range(len(some))] * STEPS, *JUMPS, -1, -3]).map(tuple)
    )
)


@settings(
    max_examples=EXAMPLES,
    derandomize=SEED is None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@seed(int(SEED or 0))
@given(histories)
def test_latest_reading_decides_about_each_key(
    clocked_engine: Engine, clock: Clock, given_history: tuple[list[Plan], tuple[int, ...]]
) -> None:
    engine = clocked_engine
    some, steps = given_history
    provider = f"acme_{next(_numbers)}"
    given_versions(engine, provider)
    model = Model()
    running: dict[int, Running] = {}
    times = itertools.count()
    pictures = []
    clock.be_right()
    for position, step in enumerate(steps):
        if step in JUMPS:
            clock.be_ahead(JUMPS[step])
        elif step not in running:
            running[step] = begin(engine, provider, some[step], times)
        elif step in steps[position + 1 :]:
            retry(engine, running[step], some[step], times)
        else:
            state = "loaded"
            try:
                model = model.publish(some[step], running[step].read)
            except Refused:
                state = "failed"
            deliver_all(engine, running[step], some[step])
            assert publishing.publish(engine, running[step].catalog)
            assert state_of(engine, running[step].catalog) == state
            assert current(engine, provider=provider) == model.now
            assert owners(engine, provider) == {
                key: thing.place for key, thing in model.things.items() if thing.is_present
            }
            pictures.append((last_publication(engine, provider), model.now))
    states = history(engine, provider)
    assert_consistent(states)
    for time, picture in pictures:
        assert picture == {
            state["key"]: state["value"]
            for state in states
            if time is not None
            and state["valid_from"] <= time
            and (state["valid_to"] is None or time < state["valid_to"])
        }


def given_versions(engine: Engine, provider: str) -> None:
    for number, version in VERSIONS.items():
        given_a_scheme(
            engine,
            *(
                an_operation(
                    operation,
                    kinds=["goods"],
                    mode=mode,
                    for_each=list(version.parts) if operation == "goods" else None,
                    tolerate={"removed": 1.0},
                    # The clock jumps while attempts run.
                    timeout=1e9,
                )
                for operation, mode in version.modes.items()
            ),
            provider=provider,
            version=number,
        )


def owners(engine: Engine, provider: str) -> dict[str, Place]:
    """Return the place that wrote each current record last."""
    found = sql(
        engine,
        """SELECT key, operation, part FROM catlog.records(ARRAY['goods'])
           WHERE provider = :provider AND removed_at IS NULL""",
        provider=provider,
    )
    return {record["key"]: Place(record["operation"], record["part"]) for record in found}


def last_publication(engine: Engine, provider: str) -> dt.datetime | None:
    time: dt.datetime | None = one(
        engine,
        """SELECT max(published_at) FROM catlog.publication u
           JOIN catlog.provider p ON p.id = u.provider_id WHERE p.name = :provider""",
        provider=provider,
    )
    return time


def begin(engine: Engine, provider: str, plan: Plan, times: "itertools.count[int]") -> Running:
    catalog = given_a_catalog(engine, provider=provider, version=plan.version, operation=plan.only)
    claims = {
        Place(claimed.operation, claimed.part): claimed for claimed in claim_all(engine, catalog)
    }
    time = next(times)
    order = sql(
        engine,
        """SELECT o.name, i.part FROM catlog.instance_attempt a
           JOIN catlog.catalog_scheme_operation_instance i ON i.id = a.instance_id
           JOIN catlog.catalog_scheme_operation o ON o.id = i.operation_id
           WHERE i.catalog_id = :id ORDER BY a.as_of""",
        id=catalog,
    )
    read = {Place(row["name"], row["part"]): 10 * time + number for number, row in enumerate(order)}
    return Running(catalog, claims, read)


def retry(engine: Engine, running: Running, plan: Plan, times: "itertools.count[int]") -> None:
    """Fail the attempts of some places, which have stored rows, and claim those places again."""
    for place in sorted(plan.failing.intersection(plan.places)):
        send(engine, running.claims[place], {"a": "junk", "z": "junk"})
        attempts.fail(engine, running.claims[place].attempt, "it broke")
        [again] = claim_all(engine, running.catalog)
        running.claims[place] = again
        running.read[place] = 10 * next(times)


def deliver_all(engine: Engine, running: Running, plan: Plan) -> None:
    for place, claimed in running.claims.items():
        assert deliver(engine, claimed, plan.rows_of(place)) == "done"
