"""Claim hints: claims skip the known empty part of the queue, and miss nothing."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Engine

from catlog_scrapy.store.queue import attempts, catalogs, claim_hints, starting
from catlog_scrapy.store.queue.claim_hints import claim_hints_of
from catlog_scrapy.store.queue.claims import Claim, claim
from catlog_scrapy.store.sql import rows, transaction
from tests.support.factories import (
    an_operation,
    at_once,
    given_a_catalog,
    given_a_provider,
    given_a_scheme,
    given_a_waiting_catalog,
    one,
)

WORDS = [f"{number:02}" for number in range(12)]


@pytest.fixture(autouse=True)
def search_before_each_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim_hints, "CLAIMS_PER_SEARCH", 1)


def given_a_queue(engine: Engine, max_running: int | None = None) -> None:
    given_a_provider(engine, max_running=max_running)
    given_a_scheme(engine, an_operation(for_each=WORDS))
    given_a_catalog(engine)


def parts(claims: list[Claim]) -> list[str]:
    return [each.part for each in claims]


def search_until_behind(engine: Engine, claimed: Claim) -> None:
    """Search until the head of the only queue is behind an instance that was claimed.

    Transactions of other databases on this server may delay the head.
    """
    hints = claim_hints_of(engine)
    position, until = position_of(engine, claimed), time.monotonic() + 30
    while max((head.position for head in hints.heads.values()), default=0) <= position:
        assert time.monotonic() < until
        hints.refresh(engine)


def position_of(engine: Engine, claimed: Claim) -> int:
    found: int = one(
        engine,
        "SELECT position FROM catlog.catalog_scheme_operation_instance WHERE id = :id",
        id=claimed.attempt.instance,
    )
    return found


def test_claims_with_hints_follow_the_order_of_the_queue(engine: Engine) -> None:
    given_a_queue(engine)
    claims = [each for _ in WORDS for each in claim(engine, "here")]
    assert parts(claims) == WORDS
    search_until_behind(engine, claims[-2])
    assert claim(engine, "here") == []


def test_claim_with_hints_finds_a_later_catalog(engine: Engine) -> None:
    given_a_queue(engine)
    claims = claim(engine, "here", limit=len(WORDS))
    search_until_behind(engine, claims[-2])
    assert claim(engine, "here") == []
    given_a_catalog(engine)
    assert parts(claim(engine, "here")) == [WORDS[0]]


def test_released_instance_before_the_head_is_claimed_first(engine: Engine) -> None:
    given_a_queue(engine)
    [first] = claim(engine, "here")
    claim(engine, "here", limit=3)
    search_until_behind(engine, first)
    attempts.release(engine, first.attempt)
    assert parts(claim(engine, "here", limit=2)) == [WORDS[0], WORDS[4]]


def test_retried_instances_before_the_head_are_claimed(engine: Engine) -> None:
    """Most of them were cancelled before they were ever claimed."""
    given_a_queue(engine)
    [first] = claim(engine, "here")
    catalogs.cancel(engine, first.catalog)
    given_a_catalog(engine)
    [later, _] = claim(engine, "here", limit=2)
    search_until_behind(engine, later)
    catalogs.retry(engine, first.catalog)
    assert parts(claim(engine, "here", limit=len(WORDS) + 1)) == [*WORDS, WORDS[2]]


def test_instances_of_each_priority_are_claimed_with_hints(engine: Engine) -> None:
    given_a_queue(engine)
    urgent, idle = given_a_catalog(engine, priority=1), given_a_catalog(engine, priority=-1)
    claims = claim(engine, "here", limit=len(WORDS) + 2)
    assert {each.catalog for each in claims[: len(WORDS)]} == {urgent}
    search_until_behind(engine, claims[-2])
    assert parts(claim(engine, "here", limit=len(WORDS))) == [*WORDS[2:], *WORDS[:2]]
    more = given_a_catalog(engine, priority=2)
    assert {each.catalog for each in claim(engine, "here", limit=len(WORDS))} == {more}
    assert {each.catalog for each in claim(engine, "here", limit=len(WORDS))} == {idle}


def test_instance_of_a_slow_transaction_is_claimed_after_its_commit(engine: Engine) -> None:
    """The instances that are claimed meanwhile have higher positions."""
    given_a_scheme(engine)
    slow = given_a_waiting_catalog(engine)
    with transaction(engine) as opened:
        starting.start(opened, slow)
        for _ in range(4):
            quick = given_a_catalog(engine)
            assert [each.catalog for each in claim(engine, "here")] == [quick]
    assert [each.catalog for each in claim(engine, "here")] == [slow]


def test_first_claim_of_an_engine_does_not_pass_a_catalog_that_starts(engine: Engine) -> None:
    """No newer transaction ends meanwhile: a snapshot's upper bound is the slow one's number."""
    given_a_scheme(engine)
    slow = given_a_waiting_catalog(engine)
    with transaction(engine) as opened:
        starting.start(opened, slow)
        assert claim(engine, "here") == []
    assert [each.catalog for each in claim(engine, "here")] == [slow]


def test_claim_in_a_transaction_does_not_pass_a_catalog_that_starts(engine: Engine) -> None:
    """The transaction's own number is older than the slow transaction."""
    given_a_scheme(engine)
    slow = given_a_waiting_catalog(engine)
    hints = claim_hints_of(engine)
    with transaction(engine) as older, older.connect() as connection:
        connection.exec_driver_sql("SELECT pg_current_xact_id()")
        with transaction(engine) as opened:
            starting.start(opened, slow)
            for _ in range(3):
                hints.refresh(engine)
                assert claim(older, "here") == []
    assert [each.catalog for each in claim(engine, "here")] == [slow]


def test_claims_of_two_threads_do_not_pass_a_catalog_that_starts(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search that was overtaken must not judge the positions that the other search has read."""
    given_a_scheme(engine)
    slow = given_a_waiting_catalog(engine)
    hints = claim_hints_of(engine)
    has_searched, goes_on = threading.Event(), threading.Event()

    def pausing_rows(*arguments: Any, **values: Any) -> Any:
        found = rows(*arguments, **values)
        if threading.current_thread() is not threading.main_thread():
            has_searched.set()
            goes_on.wait(60)
        return found

    monkeypatch.setattr(claim_hints, "FIRST_SEARCHES", 1)
    monkeypatch.setattr(claim_hints, "rows", pausing_rows)
    with ThreadPoolExecutor(1) as threads, transaction(engine) as opened:
        overtaken = threads.submit(hints.refresh, engine)
        assert has_searched.wait(60)
        starting.start(opened, slow)
        hints.refresh(engine)
        goes_on.set()
        overtaken.result()
        for _ in range(3):
            hints.refresh(engine)
    assert [each.catalog for each in claim(engine, "here")] == [slow]


def test_claims_with_hints_respect_max_running(engine: Engine) -> None:
    given_a_queue(engine, max_running=3)
    held: list[Claim] = []
    for _ in range(4):
        for some in at_once(*[partial(claim, engine, "here", limit=2)] * 4):
            held += some
        running = one(
            engine,
            """SELECT count(*) FROM catlog.catalog_scheme_operation_instance
               WHERE node IS NOT NULL""",
        )
        assert running == len(held) <= 3
        attempts.release(engine, held.pop().attempt)
