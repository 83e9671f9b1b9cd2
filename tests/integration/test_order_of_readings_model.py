"""Data is as old as its reading: random interleavings of loads against a small model.

Loads overlap, parts of them are retried later, keys move between parts, and the clock jumps.
"""

import itertools
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from catlog_scrapy.store.publishing import publish as publishing
from catlog_scrapy.store.queue import attempts
from catlog_scrapy.store.queue.claims import Claim
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

PARTS = ("x", "y")
MODES = {1: "snapshot", 2: "incremental"}
JUMP = -1
# A load is claimed, perhaps retried, and published.
STEPS = 3
_numbers = itertools.count(1)

Rows = list[tuple[int, str, Any]]


@dataclass(frozen=True)
class Plan:
    """Load to be made: rows as (part, key, value), and the parts that fail at first."""

    version: int
    is_partial: bool
    rows: Rows
    failing: frozenset[str]

    def rows_of(self, part: str) -> list[tuple[str, Any]]:
        return [(key, value) for number, key, value in self.rows if PARTS[number] == part]


@dataclass
class Running:
    """Load that is under way: its claims by part, and the position of each reading in time."""

    catalog: UUID
    claims: dict[str, Claim]
    read: dict[str, int]


@dataclass
class Model:
    """Last writer wins, by the time of reading; absence is as old as the load's first reading."""

    times: dict[str, int] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, str] = field(default_factory=dict)
    present: set[str] = field(default_factory=set)
    high_water_mark: int = -1

    def publish(self, plan: Plan, read: dict[str, int]) -> bool:
        """Add a load; return False if it yields Unchanged for an unknown key."""
        fresh = [part for part in PARTS if read[part] >= self.high_water_mark]
        if not fresh:
            return True
        removes = plan.version == 1 and not plan.is_partial and len(fresh) == len(PARTS)
        latest = self._latest(plan, fresh)
        if any(self._is_unknown(key, value, read[part]) for key, (part, value) in latest.items()):
            return False
        earliest = min(read.values())
        for key, (part, value) in latest.items():
            self._apply(key, value, part, read[part], earliest if removes else None)
        if removes:
            for key in self.times.keys() - latest.keys():
                self._remove(key, earliest)
            self.high_water_mark = earliest
        return True

    def _latest(self, plan: Plan, fresh: list[str]) -> dict[str, tuple[str, Any]]:
        rows = [(key, (part, value)) for part in fresh for key, value in plan.rows_of(part)]
        ranks = {id(UNCHANGED): 1, id(GONE): 0}
        return dict(sorted(rows, key=lambda row: ranks.get(id(row[1][1]), 2)))

    def _is_unknown(self, key: str, value: Any, time: int) -> bool:
        if value is not UNCHANGED or key in self.values:
            return False
        return key not in self.times or time >= self.times[key]

    def _apply(self, key: str, value: Any, part: str, time: int, absent_since: int | None) -> None:
        if time < self.times.get(key, -1):
            return
        if value is not GONE:
            if value is not UNCHANGED:
                self.values[key] = value
            self.times[key], self.parts[key] = time, part
            self.present.add(key)
        elif key not in self.times:
            if absent_since is None:
                self.times[key], self.parts[key] = time, part
        elif key not in self.present:
            if absent_since is None:
                self.times[key] = time
        elif self.parts[key] == part:
            self._remove(key, time)
        elif absent_since is not None:
            self._remove(key, absent_since)

    def _remove(self, key: str, time: int) -> None:
        if key in self.present and time >= self.times[key]:
            self.times[key] = time
            self.present.discard(key)

    @property
    def now(self) -> dict[str, Any]:
        return {key: self.values[key] for key in self.present}


plans = st.builds(
    Plan,
    version=st.sampled_from([1, 1, 2]),
    is_partial=st.sampled_from([False, False, True]),
    rows=st.lists(
        st.tuples(
            st.integers(0, 1), st.sampled_from("abc"), st.sampled_from([1, 2, 3, UNCHANGED, GONE])
        ),
        max_size=6,
    ),
    failing=st.frozensets(st.sampled_from(PARTS)),
)
# Loads and the order of their steps: each load's number three times, and jumps of the clock.
histories = st.lists(plans, min_size=2, max_size=4).flatmap(
    lambda some: st.tuples(
        st.just(some), st.permutations([*range(len(some)), JUMP] * STEPS).map(tuple)
    )
)


@settings(
    max_examples=60,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(histories)
def test_latest_reading_decides_about_each_key(
    engine: Engine, given_history: tuple[list[Plan], tuple[int, ...]]
) -> None:
    some, steps = given_history
    provider = f"acme_{next(_numbers)}"
    for version, mode in MODES.items():
        goods = an_operation(mode=mode, for_each=list(PARTS), tolerate={"removed": 1.0})
        given_a_scheme(engine, goods, provider=provider, version=version)
    model = Model()
    running: dict[int, Running] = {}
    clock = itertools.count()
    pictures = []
    for position, step in enumerate(steps):
        if step == JUMP:
            jump(engine)
        elif step not in running:
            running[step] = begin(engine, provider, some[step], clock)
        elif step in steps[position + 1 :]:
            retry(engine, running[step], some[step], clock)
        else:
            accepted = model.publish(some[step], running[step].read)
            deliver_all(engine, running[step], some[step])
            assert publishing.publish(engine, running[step].catalog)
            state = state_of(engine, running[step].catalog)
            assert state == ("loaded" if accepted else "failed")
            assert current(engine, provider=provider) == model.now
            pictures.append((one(engine, "SELECT clock_timestamp()"), model.now))
    states = history(engine, provider)
    assert_consistent(states)
    for time, picture in pictures:
        assert picture == {
            state["key"]: state["value"]
            for state in states
            if state["valid_from"] <= time
            and (state["valid_to"] is None or time < state["valid_to"])
        }


def jump(engine: Engine) -> None:
    """Let the clock run an hour ahead of the last reading, and then be right again."""
    sql(
        engine,
        """SELECT setval('catlog.reading_clock', last_value + CAST(3600e6 AS bigint))
           FROM catlog.reading_clock""",
    )


def begin(engine: Engine, provider: str, plan: Plan, clock: "itertools.count[int]") -> Running:
    catalog = given_a_catalog(
        engine,
        provider=provider,
        version=plan.version,
        operation="goods" if plan.is_partial else None,
    )
    claims = {claimed.part: claimed for claimed in claim_all(engine, catalog)}
    time = next(clock)
    order = sql(
        engine,
        """SELECT i.part FROM catlog.instance_attempt a
           JOIN catlog.catalog_scheme_operation_instance i ON i.id = a.instance_id
           WHERE i.catalog_id = :id ORDER BY a.as_of""",
        id=catalog,
    )
    read = {row["part"]: 10 * time + number for number, row in enumerate(order)}
    return Running(catalog, claims, read)


def retry(engine: Engine, running: Running, plan: Plan, clock: "itertools.count[int]") -> None:
    """Fail the attempts of some parts, which have stored rows, and claim those parts again."""
    for part in sorted(plan.failing):
        send(engine, running.claims[part], {"a": "junk", "z": "junk"})
        attempts.fail(engine, running.claims[part].attempt, "it broke")
        [again] = claim_all(engine, running.catalog)
        running.claims[part] = again
        running.read[part] = 10 * next(clock)


def deliver_all(engine: Engine, running: Running, plan: Plan) -> None:
    for part, claimed in running.claims.items():
        assert deliver(engine, claimed, plan.rows_of(part)) == "done"
