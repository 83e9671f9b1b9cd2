"""Heartbeat: leases, time limits and hung crawls, with a silent database too."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine

from catlog_scrapy.crawl.attempt import Attempt
from catlog_scrapy.db.engine import make_engine
from catlog_scrapy.store.queue import catalogs
from catlog_scrapy.worker import heartbeat
from catlog_scrapy.worker.heartbeat import Heartbeat
from catlog_scrapy.worker.time_limits import TimeLimits
from tests.support.factories import (
    an_operation,
    claim_all,
    given_a_catalog,
    given_a_scheme,
    one,
    sql,
    the_attempt,
)
from tests.support.proxy import Proxy
from tests.support.waiting import WAIT_LIMIT_S

LEASE = 3.0
# Shorter than the time-outs of TCP, and longer than a slow machine needs.
AT_ONCE_S = 20.0
FOR_EVER = {"timeout": 3600.0, "start_timeout": 3600.0, "stall_timeout": 3600.0}


def until(condition: Callable[[], Any], seconds: float = WAIT_LIMIT_S) -> float:
    """Wait for *condition*, at most *seconds*; return the time that it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() < began + seconds, "it never happened"
        time.sleep(0.02)
    return time.monotonic() - began


def given_attempts(engine: Engine, *parts: str, **limits: float) -> list[Attempt]:
    """Make a running attempt for each part, under these limits."""
    operation = an_operation(for_each=list(parts) or ["a"], **{**FOR_EVER, **limits})
    given_a_scheme(engine, operation)
    return [Attempt(engine, claimed, ()) for claimed in claim_all(engine, given_a_catalog(engine))]


@contextmanager
def beating(engine: Engine, *attempts: Attempt, lease: float = LEASE) -> Iterator[threading.Event]:
    """Run a heartbeat with *attempts*; yield an event, set when it would replace its process."""
    replaced = threading.Event()

    def replace_process() -> None:
        replaced.set()
        beat.end()

    beat = Heartbeat(engine, lease, replace_process)
    for attempt in attempts:
        attempt.is_open = True
        beat.add(attempt)
    beat.start()
    try:
        yield replaced
    finally:
        beat.end()
        beat.join(WAIT_LIMIT_S)


@pytest.fixture
def proxy(database_url: str) -> Iterator[Proxy]:
    with Proxy(database_url) as proxy:
        yield proxy


@pytest.fixture
def distant(engine: Engine, proxy: Proxy) -> Iterator[Engine]:
    """Engine whose connections pass the proxy, and are closed after the test."""
    distant = make_engine(proxy.url)
    yield distant
    proxy.cut()
    proxy.flows.set()
    distant.dispose()


def lease_left(engine: Engine) -> float:
    left = one(
        engine,
        """SELECT extract(epoch FROM min(lease_expires_at) - clock_timestamp())
           FROM catlog.catalog_scheme_operation_instance""",
    )
    return float(left)


def test_leases_are_renewed_while_the_database_answers(engine: Engine) -> None:
    [attempt] = given_attempts(engine)
    with beating(engine, attempt):
        time.sleep(2 * LEASE)
        assert attempt.stop_code is None
        assert 0 < lease_left(engine) <= LEASE


def test_lost_packets_end_the_lease_on_time(engine: Engine, distant: Engine, proxy: Proxy) -> None:
    [attempt] = given_attempts(engine)
    with beating(distant, attempt):
        time.sleep(LEASE)
        proxy.freeze()
        took = until(lambda: attempt.stop_code)
    assert attempt.stop_code == "lost"
    assert attempt.stop_reason == "the database could not be reached for 3 s"
    assert LEASE / 3 < took < LEASE + AT_ONCE_S


def test_short_network_failure_keeps_the_lease(
    engine: Engine, distant: Engine, proxy: Proxy
) -> None:
    [attempt] = given_attempts(engine)
    with beating(distant, attempt, lease=6):
        time.sleep(1)
        for fault in (proxy.freeze, proxy.cut):
            fault()
            time.sleep(1)
            proxy.thaw()
            time.sleep(2.5)
        assert attempt.stop_code is None


def test_unanswered_renewal_does_not_block_the_next_renewal(
    engine: Engine, distant: Engine, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    [attempt] = given_attempts(engine)
    asked = heartbeat.leases.heartbeat
    silent = threading.Event()
    questions = []

    def ask(*arguments: Any, **named: Any) -> Any:
        questions.append(1)
        if len(questions) == 2:
            silent.wait(WAIT_LIMIT_S)
        return asked(*arguments, **named)

    monkeypatch.setattr(heartbeat.leases, "heartbeat", ask)
    with beating(engine, attempt):
        time.sleep(2.5 * LEASE)
        assert attempt.stop_code is None
        silent.set()


def test_time_limits_hold_while_the_database_is_silent(
    engine: Engine, distant: Engine, proxy: Proxy
) -> None:
    late, stalled = given_attempts(engine, "a", "b", stall_timeout=1.0)
    late.deadline = time.monotonic() + 1
    late.storing = 1
    proxy.freeze()
    with beating(distant, late, stalled, lease=60):
        assert until(lambda: late.stop_code and stalled.stop_code) < AT_ONCE_S
    assert (late.stop_code, late.stop_reason) == (
        "timed_out",
        "it ran past its time limit of 3600 s",
    )
    assert (stalled.stop_code, stalled.stop_reason) == (
        "timed_out",
        "nothing came for 1 s (no response, no item)",
    )


def test_process_with_a_hung_crawl_ends_while_the_database_is_silent(
    engine: Engine, distant: Engine, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "HUNG_AFTER_S", 0.5)
    monkeypatch.setattr(heartbeat, "RELEASE_TIMEOUT_S", 1.0)
    [attempt] = given_attempts(engine)
    distant_attempt = Attempt(distant, attempt.claim, ())
    with beating(distant, distant_attempt) as replaced:
        time.sleep(LEASE)
        proxy.freeze()
        assert until(replaced.is_set) < LEASE + AT_ONCE_S
    assert distant_attempt.stop_code == "lost"
    assert the_attempt(engine, attempt.claim.attempt)["outcome"] is None


def test_process_with_a_hung_crawl_releases_its_other_attempts(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "HUNG_AFTER_S", 0.5)
    hangs, lost, innocent = given_attempts(engine, "a", "b", "c")
    for attempt, answer in ((hangs, "timed_out"), (lost, "lost")):
        attempt.stop(answer)
    with beating(engine, hangs, lost, innocent) as replaced:
        until(replaced.is_set)
    ended = [the_attempt(engine, a.claim.attempt) for a in (hangs, lost, innocent)]
    hung = "; it hung: it had not stopped after 0.5 s"
    assert [(attempt["outcome"], attempt["error"]) for attempt in ended] == [
        ("timed_out", f"it ran past its time limit of 3600 s{hung}"),
        ("lost", f"its lease had ended, and another worker may have it{hung}"),
        ("released", "released: another crawl of its process hung"),
    ]
    assert one(engine, "SELECT errors FROM catlog.catalog") == 1


def test_cancelled_catalog_stops_its_attempt(engine: Engine) -> None:
    [attempt] = given_attempts(engine)
    with beating(engine, attempt):
        catalogs.cancel(engine, attempt.claim.catalog)
        until(lambda: attempt.stop_code)
    assert (attempt.stop_code, attempt.stop_reason) == ("cancel", "its catalog stopped")


def test_spider_that_does_not_open_exceeds_start_timeout(engine: Engine) -> None:
    [attempt] = given_attempts(engine, start_timeout=5.0, stall_timeout=3.0)
    limits = TimeLimits(attempt)
    attempt.began_at -= 4
    assert limits.exceeded() is None
    attempt.began_at -= 2
    assert limits.exceeded() == "its spider had not opened after 5 s"
    # An open spider has another limit.
    attempt.is_open = True
    assert limits.exceeded() is None


@pytest.mark.parametrize("what", ["received", "accepted", "rejected", "dropped"])
def test_responses_and_items_count_as_progress(engine: Engine, what: str) -> None:
    [attempt] = given_attempts(engine, stall_timeout=5.0)
    attempt.is_open = True
    limits = TimeLimits(attempt)
    assert limits.exceeded() is None
    limits.progressed_at -= 6
    counted = attempt if what == "received" else attempt.report
    setattr(counted, what, 1)
    assert limits.exceeded() is None
    limits.progressed_at -= 6
    assert limits.exceeded() == "nothing came for 5 s (no response, no item)"


def test_waiting_for_the_store_does_not_stall(engine: Engine) -> None:
    [attempt] = given_attempts(engine, stall_timeout=5.0)
    attempt.is_open = True
    limits = TimeLimits(attempt)
    attempt.storing = 1
    for _ in range(2):
        assert limits.exceeded() is None
        limits.progressed_at -= 6
    assert limits.exceeded() is None
    attempt.storing = 0
    assert limits.exceeded() is None
    limits.progressed_at -= 6
    assert limits.exceeded()


def test_attempt_without_limits_never_times_out(engine: Engine) -> None:
    [attempt] = given_attempts(engine, start_timeout=1.0, stall_timeout=1.0)
    old = Attempt(engine, replace(attempt.claim, limits={}), ())
    old.began_at -= 9
    limits = TimeLimits(old)
    assert limits.exceeded() is None
    old.is_open = True
    assert limits.exceeded() is None
    limits.progressed_at -= 9
    assert limits.exceeded() is None


def test_first_reason_to_stop_an_attempt_counts(engine: Engine) -> None:
    [attempt] = given_attempts(engine)
    attempt.stop("timed_out", "nothing came")
    attempt.stop("lost")
    assert (attempt.stop_code, attempt.stop_reason) == ("timed_out", "nothing came")
    assert attempt.end_stopped() == "timed_out"
    assert sql(engine, "SELECT error FROM catlog.instance_attempt") == [{"error": "nothing came"}]
