"""Claims: the order of the queue, and the limit max_running of a provider."""

import threading
from functools import partial

import pytest
from sqlalchemy import Engine, text

from catlog_scrapy.exceptions import NotFound, SchemaMismatch
from catlog_scrapy.store.queue import attempts, catalogs
from catlog_scrapy.store.queue.claims import Claim, begin, claim
from tests.support.factories import (
    FIELDS,
    an_operation,
    at_once,
    claim_of,
    day,
    deliver,
    given_a_catalog,
    given_a_provider,
    given_a_scheme,
    instances_of,
    one,
    sql,
    state_of,
    the_attempt,
    the_catalog,
)

WORDS = [f"{number:02}" for number in range(40)]


def given_many(engine: Engine, provider: str = "acme", max_running: int | None = None) -> None:
    """Insert a provider with a catalog of forty instances."""
    given_a_provider(engine, provider, max_running=max_running)
    given_a_scheme(engine, an_operation(for_each=WORDS), provider=provider)


def parts(claims: list[Claim]) -> list[str]:
    return [each.part for each in claims]


def test_claim_holds_all_data_of_its_attempt(engine: Engine) -> None:
    given_a_scheme(
        engine, an_operation(arguments={"year": "2026"}, timeout=90.0, tolerate={"rejected": 3})
    )
    catalog = given_a_catalog(engine)
    [found] = claim(engine, "here", logs="/var/log")
    assert (found.title, found.catalog, found.spider) == ("acme/goods/goods", catalog, "goods")
    assert found.arguments == {"year": "2026"}
    assert found.seconds == 90.0
    assert found.limits["tolerate"] == {"rejected": 3}
    fields = [{"name": name, "type": type_} for name, type_ in FIELDS]
    expected = {"name": "goods", "key": ["id"], "fields": fields, "foreign": False}
    assert found.kinds == [{**expected, "untracked": [], "rules": {}}]
    attempt = the_attempt(engine, found.attempt)
    assert attempt["node"] == "here"
    assert attempt["log"] == f"/var/log/{found.attempt}.log"
    assert begin(engine, found.attempt, 7) == found


def test_an_attempt_that_has_ended_is_not_claimed_any_more(engine: Engine) -> None:
    given_a_scheme(engine)
    found = claim_of(engine, given_a_catalog(engine))
    attempts.release(engine, found.attempt)
    with pytest.raises(NotFound, match="not running"):
        begin(engine, found.attempt, 7)


def test_priority_comes_first_then_age(engine: Engine) -> None:
    given_a_scheme(engine)
    old, young, urgent = (given_a_catalog(engine, priority=number) for number in (0, 0, 5))
    assert [claim(engine, "node")[0].catalog for _ in range(3)] == [urgent, old, young]
    assert claim(engine, "node") == []


def test_claim_of_many_instances_keeps_the_order(engine: Engine) -> None:
    given_many(engine)
    given_a_catalog(engine)
    urgent = given_a_catalog(engine, priority=1)
    first = claim(engine, "node", limit=45)
    assert parts(first) == WORDS + WORDS[:5]
    assert {each.catalog for each in first[:40]} == {urgent}


def test_claims_respect_max_running_of_a_provider(engine: Engine) -> None:
    given_many(engine, max_running=3)
    catalog = given_a_catalog(engine)
    first = claim(engine, "node", limit=10)
    assert parts(first) == WORDS[:3]
    assert claim(engine, "other", limit=10) == []
    deliver(engine, first[0], {"a": 1})
    attempts.release(engine, first[1].attempt)
    assert parts(claim(engine, "other", limit=10)) == [WORDS[1], WORDS[3]]
    assert catalog == first[0].catalog


def test_cancelled_instance_keeps_its_slot_until_its_crawl_has_ended(engine: Engine) -> None:
    given_many(engine, max_running=1)
    running = claim_of(engine, given_a_catalog(engine))
    catalogs.cancel(engine, running.catalog)
    next_one = given_a_catalog(engine)
    assert claim(engine, "node") == []
    attempts.fail(engine, running.attempt, "stopped", outcome="cancelled")
    assert claim_of(engine, next_one)


class Gauge:
    """Count of running instances per provider, read while no worker claims."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def most(self) -> int:
        found: int = one(
            self.engine,
            """SELECT coalesce(max(running), 0) FROM (
                   SELECT count(*) AS running FROM catlog.catalog_scheme_operation_instance
                   WHERE node IS NOT NULL GROUP BY provider_id) AS each""",
        )
        return found


@pytest.mark.parametrize("providers", [1, 3])
def test_concurrent_claims_respect_max_running(engine: Engine, providers: int) -> None:
    """A single statement that locks and counts exceeds max_running here."""
    names = [f"acme_{number}" for number in range(providers)]
    for name in names:
        given_many(engine, name, max_running=2)
        given_a_catalog(engine, provider=name)
    gauge = Gauge(engine)
    seen: list[Claim] = []
    for number in range(40):
        claims = [
            each for some in at_once(*[lambda: claim(engine, "node", limit=2)] * 4) for each in some
        ]
        assert gauge.most() <= 2
        seen += claims
        # An uneven number goes back, so that one slot is free, or two.
        for each in claims[: 1 + number % 2]:
            deliver(engine, each)
    assert len({each.attempt for each in seen}) == len(seen)
    assert len({each.provider for each in seen}) == providers


def test_concurrent_claims_of_different_catalogs_respect_max_running(engine: Engine) -> None:
    """The workers claim different instances, so only the provider's lock limits them."""
    given_many(engine, max_running=3)
    own = [given_a_catalog(engine) for _ in range(4)]
    workers = [partial(claim, engine, "node", limit=3, catalogs=[catalog]) for catalog in own]
    for _ in range(15):
        claims = [each for some in at_once(*workers) for each in some]
        assert 0 < len(claims) <= 3
        for each in claims:
            deliver(engine, each)


def test_concurrent_workers_complete_each_instance_once(engine: Engine) -> None:
    given_many(engine, max_running=3)
    catalog = given_a_catalog(engine)
    done: list[str] = []
    most: list[int] = []
    gauge = Gauge(engine)

    def work() -> None:
        while state_of(engine, catalog) == "loading":
            for each in claim(engine, threading.current_thread().name, limit=2):
                most.append(gauge.most())
                assert deliver(engine, each) == "done"
                done.append(each.part)

    at_once(*[work] * 4)
    assert sorted(done) == WORDS
    assert max(most) <= 3
    assert state_of(engine, catalog) == "publishing"


def test_a_backlog_of_one_provider_does_not_starve_another(engine: Engine) -> None:
    given_many(engine, "busy")
    given_a_catalog(engine, provider="busy")
    given_many(engine, "calm")
    given_a_catalog(engine, provider="calm")
    claims = [claim(engine, "node")[0].provider for _ in range(10)]
    assert claims.count("calm") == 5


def test_single_worker_with_one_slot_serves_both_providers(engine: Engine) -> None:
    for provider in ("busy", "calm"):
        given_many(engine, provider)
        given_a_catalog(engine, provider=provider)
    served = set()
    for _ in range(40):
        [found] = claim(engine, "node")
        deliver(engine, found)
        served.add(found.provider)
    assert served == {"busy", "calm"}


def test_provider_at_its_limit_does_not_delay_other_providers(engine: Engine) -> None:
    given_many(engine, "busy", max_running=1)
    given_a_catalog(engine, provider="busy", priority=9)
    given_many(engine, "calm")
    given_a_catalog(engine, provider="calm")
    assert [claim(engine, "node")[0].provider for _ in range(3)] == ["busy", "calm", "calm"]


def test_provider_locked_by_another_claim_is_skipped(engine: Engine) -> None:
    for name in ("one", "two"):
        given_many(engine, name)
        given_a_catalog(engine, provider=name)
    with engine.begin() as connection:
        connection.execute(text("SELECT 1 FROM catlog.provider WHERE name = 'one' FOR UPDATE"))
        assert claim(engine, "node")[0].provider == "two"
    assert claim(engine, "node")[0].provider == "one"


def test_an_instance_that_waits_is_not_claimed_before_its_time(engine: Engine) -> None:
    given_a_scheme(engine, an_operation(backoff_base=60.0))
    found = claim_of(engine, given_a_catalog(engine))
    attempts.fail(engine, found.attempt, "it broke")
    assert claim(engine, "node") == []
    sql(engine, "UPDATE catlog.catalog_scheme_operation_instance SET available_at = now()")
    [again] = claim(engine, "node")
    assert again.attempt == (found.attempt.instance, 2)


def test_executor_claims_only_its_own_operations(engine: Engine) -> None:
    given_a_scheme(engine, an_operation("ours"), an_operation("theirs", executor="external"))
    given_a_catalog(engine)
    assert [c.operation for c in claim(engine, "node", limit=9)] == ["ours"]
    assert [c.operation for c in claim(engine, "node", limit=9, executor="external")] == ["theirs"]


def test_claim_can_be_limited_to_some_catalogs(engine: Engine) -> None:
    given_a_scheme(engine)
    first, second = given_a_catalog(engine), given_a_catalog(engine)
    assert claim(engine, "node", catalogs=[]) == []
    assert [c.catalog for c in claim(engine, "node", limit=9, catalogs=[second])] == [second]
    assert [c.catalog for c in claim(engine, "node", limit=9)] == [first]


def test_as_of_of_a_catalog_is_the_time_of_its_first_claim(engine: Engine) -> None:
    given_many(engine)
    catalog = given_a_catalog(engine)
    assert the_catalog(engine, catalog)["as_of"] is None
    before = one(engine, "SELECT clock_timestamp()")
    first = claim_of(engine, catalog)
    as_of = the_catalog(engine, catalog)["as_of"]
    assert before < as_of < one(engine, "SELECT clock_timestamp()")
    claim_of(engine, catalog)
    attempts.fail(engine, first.attempt, "it broke")
    catalogs.cancel(engine, catalog)
    catalogs.retry(engine, catalog)
    assert claim_of(engine, catalog).attempt == (first.attempt.instance, 2)
    assert the_catalog(engine, catalog)["as_of"] == as_of


def test_catalog_whose_as_of_cannot_be_set_is_not_claimed(engine: Engine) -> None:
    given_a_scheme(engine)
    catalog = given_a_catalog(engine)
    with engine.begin() as connection:
        connection.execute(text("SELECT 1 FROM catlog.catalog FOR NO KEY UPDATE"))
        assert claim(engine, "node") == []
    assert claim_of(engine, catalog)
    assert the_catalog(engine, catalog)["as_of"]


def test_as_of_of_a_catalog_that_uses_its_due_time_is_the_due_time(engine: Engine) -> None:
    given_a_scheme(engine, an_operation(arguments={"date": "{due_at:%Y-%m-%d}"}))
    catalog = given_a_catalog(engine, due_at=day(3))
    found = claim_of(engine, catalog)
    assert found.arguments == {"date": "2026-01-04"}
    assert the_catalog(engine, catalog)["as_of"] == day(3)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE catlog.alembic_version SET version_num = 'later'",
        "DELETE FROM catlog.alembic_version",
        "ALTER FUNCTION catlog.claim_instances RENAME TO claim_other_instances",
    ],
)
def test_a_worker_of_another_revision_stops_claiming(engine: Engine, change: str) -> None:
    given_a_scheme(engine)
    catalog = given_a_catalog(engine)
    sql(engine, change)
    with pytest.raises(SchemaMismatch, match="another revision"):
        claim(engine, "node")
    assert [instance["state"] for instance in instances_of(engine, catalog)] == ["new"]
