"""Races: concurrent work causes no deadlock, no endless load and no inconsistent state."""

import random
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from catlog_scrapy.exceptions import NotPossible
from catlog_scrapy.store.maintenance.reap import reap
from catlog_scrapy.store.publishing import publish as publishing
from catlog_scrapy.store.queue import attempts, catalogs, starting
from catlog_scrapy.store.queue.claims import Claim, claim
from catlog_scrapy.store.queue.leases import heartbeat
from tests.support.factories import (
    an_operation,
    at_once,
    claim_all,
    claim_of,
    current,
    deliver,
    expire_lease,
    given_a_catalog,
    given_a_loaded_catalog,
    given_a_scheme,
    given_a_waiting_catalog,
    sql,
    state_of,
    states_of,
    the_attempt,
)
from tests.support.waiting import WAITING_BACKENDS

PARTS = ["east", "north", "south", "west"]

# Contradictions that must never exist, whatever happened before.
CONTRADICTIONS = """
    SELECT c.state AS catalog, i.state, i.node, i.attempt, a.outcome
    FROM catlog.catalog_scheme_operation_instance i
    JOIN catlog.catalog c ON c.id = i.catalog_id
    LEFT JOIN catlog.instance_attempt a ON a.instance_id = i.id AND a.attempt = i.attempt
    WHERE NOT CASE i.state
            WHEN 'new' THEN c.state = 'loading' AND i.node IS NULL
                AND coalesce(a.outcome <> 'done', i.attempt = 0)
            WHEN 'running' THEN c.state = 'loading' AND i.node IS NOT NULL AND a.outcome IS NULL
            WHEN 'done' THEN i.node IS NULL AND a.outcome = 'done'
            WHEN 'failed' THEN c.state = 'failed' AND i.node IS NULL AND a.outcome IS NOT NULL
            ELSE c.state IN ('failed', 'cancelled')
                AND (i.node IS NOT NULL) = (i.attempt > 0 AND a.outcome IS NULL) END
       OR c.state IN ('publishing', 'loaded') AND i.state <> 'done'
       OR EXISTS (SELECT 1 FROM catlog.instance_attempt former
                  WHERE former.instance_id = i.id AND former.attempt <> i.attempt
                    AND (former.outcome IS NULL OR former.outcome = 'done'))"""
STUCK = """
    SELECT c.id FROM catlog.catalog c WHERE c.state = 'loading' AND NOT EXISTS (
        SELECT 1 FROM catlog.catalog_scheme_operation_instance
        WHERE catalog_id = c.id AND state IN ('new', 'running'))
      AND NOT EXISTS (SELECT 1 FROM catlog.catalog
                      WHERE parent_id = c.id AND state IN ('waiting', 'loading', 'publishing'))"""
WRONG_PARENTS = """
    SELECT p.state, array_agg(c.state) AS children FROM catlog.catalog p
    JOIN catlog.catalog c ON c.parent_id = p.id GROUP BY p.id, p.state
    HAVING (p.state = 'loading')
            <> bool_or(c.state IN ('waiting', 'loading', 'publishing'))
        OR (p.state = 'loaded') <> bool_and(c.state = 'loaded')"""


def assert_that_states_agree(engine: Engine) -> None:
    for contradictions in (CONTRADICTIONS, STUCK, WRONG_PARENTS):
        assert sql(engine, contradictions) == []


def test_last_two_instances_of_a_catalog_complete_concurrently(engine: Engine) -> None:
    """Without a lock, each counts the other as open, and the catalog never ends."""
    given_a_scheme(engine, an_operation(for_each=PARTS[:2]))
    for _ in range(30):
        catalog = given_a_catalog(engine)
        east, north = claim_all(engine, catalog)
        outcomes = at_once(partial(deliver, engine, east), partial(deliver, engine, north))
        assert outcomes == ["done", "done"]
        assert state_of(engine, catalog) == "publishing"
        assert publishing.publish_next(engine) == catalog


def test_last_two_children_of_a_parent_end_concurrently(engine: Engine) -> None:
    for name in ("goods", "prices"):
        given_a_scheme(engine, an_operation(name), name=name, max_errors=1)
    given_a_scheme(engine, name="all", includes=["goods", "prices"])
    for _ in range(15):
        parent, goods, prices = a_family(engine)
        failing = claim_of(engine, prices)
        deliver(engine, claim_of(engine, goods))
        at_once(
            partial(publishing.publish, engine, goods),
            partial(attempts.fail, engine, failing.attempt, "it broke"),
        )
        assert state_of(engine, parent) == "failed"
        assert_that_states_agree(engine)


def a_family(engine: Engine) -> list[UUID]:
    parent = given_a_catalog(engine, scheme="all")
    starting.start_waiting(engine)
    children = sql(
        engine,
        """SELECT c.id FROM catlog.catalog c JOIN catlog.catalog_scheme s ON s.id = c.scheme_id
           WHERE c.parent_id = :parent ORDER BY s.name""",
        parent=parent,
    )
    return [parent, *[child["id"] for child in children]]


def test_an_attempt_that_completes_as_it_is_reaped_is_done_or_lost(engine: Engine) -> None:
    given_a_scheme(engine)
    for _ in range(20):
        found = claim_of(engine, given_a_catalog(engine))
        expire_lease(engine, found)
        outcome, _, _ = at_once(
            partial(deliver, engine, found, {"a": 1}),
            *[partial(reap, engine, lease=-1.0)] * 2,
        )
        assert outcome in ("done", "lost")
        assert the_attempt(engine, found.attempt)["outcome"] == outcome
        assert state_of(engine, found.catalog) == {"done": "publishing", "lost": "loading"}[outcome]
        catalogs.cancel(engine, found.catalog)
    assert_that_states_agree(engine)


def test_a_catalog_started_by_many_is_started_once(engine: Engine) -> None:
    given_a_scheme(engine, an_operation(for_each=PARTS))
    for _ in range(10):
        catalog = given_a_waiting_catalog(engine)
        started = at_once(*[partial(starting.start, engine, catalog)] * 4)
        assert sorted(started) == [False, False, False, True]
        assert states_of(engine, catalog) == ["new"] * 4


@pytest.mark.parametrize("seed", range(4))
def test_states_agree_after_random_concurrent_actions(engine: Engine, seed: int) -> None:
    """A deadlock or a lock timeout among the six threads would raise here."""
    rng = random.Random(seed)
    for name in ("goods", "prices"):
        given_a_scheme(engine, an_operation(name, for_each=PARTS), name=name, max_errors=3)
    given_a_scheme(engine, name="all", includes=["goods", "prices"])
    family = a_family(engine)
    held: list[Claim] = []
    for _ in range(25):
        if state_of(engine, family[0]) == "loaded":
            family = a_family(engine)
        works = [a_deed(engine, rng, family, held) for _ in range(6)]
        at_once(*works)
        assert_that_states_agree(engine)


def a_deed(
    engine: Engine, rng: random.Random, family: list[UUID], held: list[Claim]
) -> Callable[[], object]:
    """Do a random action of a worker, a scheduler or a user."""
    claimed = rng.choice(held) if held else None
    catalog = rng.choice(family)
    deeds: dict[Callable[[], object], int] = {
        lambda: held.extend(claim(engine, "node", limit=3)): 6,
        lambda: cancel_or_not(engine, catalog): 1,
        lambda: retry_or_not(engine, catalog): 2,
        lambda: publishing.publish_next(engine): 2,
        lambda: reap(engine, lease=-1.0): 1,
        lambda: starting.start_waiting(engine): 1,
    }
    if claimed:
        name = claimed.attempt
        deeds |= {
            lambda: deliver(engine, claimed): 6,
            lambda: attempts.fail(engine, name, "it broke"): 1,
            lambda: attempts.fail(engine, name, "stopped", outcome="cancelled"): 1,
            lambda: attempts.release(engine, name): 1,
            lambda: heartbeat(engine, [each.attempt for each in held]): 2,
            lambda: expire_lease(engine, claimed): 1,
        }
    [deed] = rng.choices(list(deeds), list(deeds.values()))
    return deed


def cancel_or_not(engine: Engine, catalog: UUID) -> None:
    with suppress(NotPossible):
        catalogs.cancel(engine, catalog)


def retry_or_not(engine: Engine, catalog: UUID) -> None:
    with suppress(NotPossible):
        catalogs.retry(engine, catalog)


def test_an_attempt_of_a_sibling_ends_while_a_large_catalog_is_published(engine: Engine) -> None:
    """Publishing takes minutes, and must not lock the common parent for that time."""
    for name in ("goods", "prices"):
        given_a_scheme(engine, an_operation(name), name=name)
    given_a_scheme(engine, name="all", includes=["goods", "prices"])
    parent, goods, prices = a_family(engine)
    deliver(engine, claim_of(engine, goods), {"a": 1})
    sibling = claim_of(engine, prices)

    def end_sibling() -> str:
        # Publishing has begun when it waits for the table.
        wait_for_a_waiting_lock(engine)
        try:
            return deliver(engine, sibling)
        finally:
            slow.rollback()

    with engine.connect() as slow:
        slow.execute(text("LOCK TABLE records.goods IN EXCLUSIVE MODE"))
        assert at_once(lambda: publishing.publish(engine, goods), end_sibling) == [True, "done"]
    assert state_of(engine, parent) == "loading"
    assert publishing.publish_next(engine) == prices
    assert state_of(engine, parent) == "loaded"


def test_catalog_cancelled_during_its_publish_is_not_published(engine: Engine) -> None:
    given_a_scheme(engine)
    catalog = given_a_loaded_catalog(engine, {"a": 1})

    def cancel() -> None:
        wait_for_a_waiting_lock(engine)
        try:
            catalogs.cancel(engine, catalog)
        finally:
            slow.rollback()

    with engine.connect() as slow:
        slow.execute(text("LOCK TABLE records.goods IN EXCLUSIVE MODE"))
        assert at_once(lambda: publishing.publish(engine, catalog), cancel) == [False, None]
    assert state_of(engine, catalog) == "cancelled"
    assert current(engine) == {}


def wait_for_a_waiting_lock(engine: Engine) -> None:
    while not sql(engine, WAITING_BACKENDS):
        time.sleep(0.01)
