"""Claim hints: while claims are slow, they skip the known empty part of the queue."""

from functools import partial

import pytest
from sqlalchemy import Engine

from catlog_scrapy.store.queue import attempts, claim_hints
from catlog_scrapy.store.queue.claim_hints import claim_hints_of
from catlog_scrapy.store.queue.claims import Claim, claim
from tests.support.factories import (
    an_operation,
    at_once,
    given_a_catalog,
    given_a_provider,
    given_a_scheme,
    one,
)

WORDS = [f"{number:02}" for number in range(12)]


@pytest.fixture(autouse=True)
def all_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat every claim as slow, and keep claim hints for an hour."""
    monkeypatch.setattr(claim_hints, "SLOW_SEARCH_S", -1.0)
    monkeypatch.setattr(claim_hints, "MAX_SCAN_SHARE", 1e-7)


def given_a_queue(engine: Engine, max_running: int | None = None) -> None:
    given_a_provider(engine, max_running=max_running)
    given_a_scheme(engine, an_operation(for_each=WORDS))
    given_a_catalog(engine)


def parts(claims: list[Claim]) -> list[str]:
    return [each.part for each in claims]


def test_claims_with_hints_follow_the_order_of_the_queue(engine: Engine) -> None:
    given_a_queue(engine)
    assert [part for _ in WORDS for part in parts(claim(engine, "here"))] == WORDS
    assert claim_hints_of(engine).heads
    assert claim(engine, "here") == []


def test_claim_with_hints_finds_a_later_catalog(engine: Engine) -> None:
    given_a_queue(engine)
    claim(engine, "here", limit=len(WORDS))
    claim(engine, "here")  # looks: the queue is empty
    given_a_catalog(engine)
    assert parts(claim(engine, "here")) == [WORDS[0]]


def test_released_instance_is_found_by_the_next_full_scan(engine: Engine) -> None:
    given_a_queue(engine)
    [first] = claim(engine, "here")
    claim(engine, "here")  # looks: the queue begins at the second
    attempts.release(engine, first.attempt)
    assert parts(claim(engine, "here")) == [WORDS[2]]
    claim_hints_of(engine).next_scan_at = 0.0
    assert parts(claim(engine, "here")) == [WORDS[0]]


def test_claim_hints_end_when_claims_are_quick(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_a_queue(engine)
    claim(engine, "here")
    claim(engine, "here")
    assert claim_hints_of(engine).heads
    monkeypatch.setattr(claim_hints, "SLOW_SEARCH_S", 60.0)
    claim_hints_of(engine).next_scan_at = 0.0
    claim(engine, "here")
    assert claim_hints_of(engine).heads == {}
    assert claim_hints_of(engine).next_scan_at is None


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
        claim_hints_of(engine).next_scan_at = 0.0
