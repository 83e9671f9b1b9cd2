"""A server's clock that was wrong delays nothing for longer than it was wrong: a real server."""

import datetime as dt
import logging
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine

from catlog_scrapy.db.engine import make_engine
from catlog_scrapy.store.maintenance.clock import STORE_INTERVAL_S
from catlog_scrapy.store.maintenance.tick import tick
from catlog_scrapy.store.publishing import publish as publishing
from catlog_scrapy.store.queue import attempts, catalogs
from catlog_scrapy.store.queue.claims import claim
from catlog_scrapy.store.queue.resuming import fresh_records
from catlog_scrapy.store.queue.schedules.due import make_due
from tests.support.clock import Clock
from tests.support.factories import (
    an_operation,
    assert_consistent,
    claim_of,
    current,
    deliver,
    given_a_catalog,
    given_a_provider,
    given_a_schedule,
    given_a_scheme,
    history,
    load,
    one,
    sql,
    state_of,
    the_attempt,
    the_catalog,
)

TOLERANT = {"removed": 1.0}
LEASE_S = 60.0
DAY, HOUR, YEAR = dt.timedelta(days=1), dt.timedelta(hours=1), dt.timedelta(days=365)
OF_THE_DAY = {"date": "{due_at:%Y-%m-%d}"}


@pytest.fixture
def engine(clocked_engine: Engine) -> Engine:
    return clocked_engine


def given_goods(engine: Engine, **columns: Any) -> None:
    given_a_scheme(engine, an_operation(tolerate=TOLERANT, **columns))


def states(engine: Engine) -> list[str]:
    found = sql(engine, "SELECT state FROM catlog.catalog ORDER BY created_at, due_at")
    return [catalog["state"] for catalog in found]


def next_due_at(engine: Engine, schedule: UUID) -> dt.datetime:
    due: dt.datetime = one(
        engine, "SELECT next_due_at FROM catlog.schedule WHERE id = :id", id=schedule
    )
    return due


def now(engine: Engine) -> dt.datetime:
    time: dt.datetime = one(engine, "SELECT clock_timestamp()")
    return time


def clock_was_ahead(engine: Engine, clock: Clock, distance: dt.timedelta) -> None:
    """Let the maintenance see the clock ahead, and then right again."""
    clock.be_ahead(distance)
    tick(engine, LEASE_S)
    clock.be_right()
    tick(engine, LEASE_S)


@pytest.mark.parametrize("distance", [DAY, HOUR, YEAR, -HOUR])
def test_loads_after_a_wrong_clock_are_newer(
    engine: Engine, clock: Clock, distance: dt.timedelta, caplog: pytest.LogCaptureFixture
) -> None:
    given_goods(engine)
    load(engine, {"k": 1})
    clock.be_ahead(distance)
    load(engine, {"k": 2, "l": 2})
    clock.be_right()
    with caplog.at_level(logging.WARNING):
        later = load(engine, {"k": 3})
    assert "stale" not in later["published"]
    assert current(engine) == {"k": 3}
    assert "stands behind" in caplog.text
    assert_consistent(history(engine))


def test_step_back_between_claim_and_publish_inverts_no_interval(
    engine: Engine, clock: Clock
) -> None:
    given_goods(engine)
    for value, distance in enumerate([DAY, HOUR, -HOUR, -DAY]):
        catalog = given_a_catalog(engine)
        claimed = claim_of(engine, catalog)
        clock.be_ahead(distance)
        deliver(engine, claimed, {"k": value})
        assert publishing.publish(engine, catalog)
    states = history(engine)
    assert_consistent(states)
    assert [state["value"] for state in states] == [0, 1, 2, 3]


@pytest.mark.parametrize("distance", [DAY, YEAR])
@pytest.mark.parametrize("cron", ["0 * * * *", "0 3 * * *", "*/5 * * * *"])
def test_schedule_of_a_clock_ahead_is_due_again_at_its_next_due_time(
    engine: Engine,
    clock: Clock,
    cron: str,
    distance: dt.timedelta,
    caplog: pytest.LogCaptureFixture,
) -> None:
    given_goods(engine)
    schedule = given_a_schedule(engine, cron=cron, due="now()")
    assert len(make_due(engine)) == 1
    right = next_due_at(engine, schedule)
    load_due(engine)
    clock.be_ahead(distance)
    assert len(make_due(engine)) == 1
    load_due(engine)
    assert next_due_at(engine, schedule) > right
    clock.be_right()
    with caplog.at_level(logging.WARNING):
        assert make_due(engine) == []
    assert next_due_at(engine, schedule) == right
    assert "the database's clock was ahead" in caplog.text
    assert states(engine) == ["loaded", "loaded"]
    clock.be_ahead(right - now(engine) + dt.timedelta(seconds=1))
    assert len(make_due(engine)) == 1
    found = "SELECT count(*) FROM catlog.catalog WHERE schedule_id IS NOT NULL AND due_at = :due"
    assert one(engine, found, due=right) == 1


def load_due(engine: Engine) -> None:
    """Load all waiting catalogs."""
    tick(engine, LEASE_S)
    for claimed in claim(engine, "node", limit=100):
        deliver(engine, claimed, {"k": 1})
    tick(engine, LEASE_S)


def test_small_step_back_makes_no_second_catalog_of_a_due_time(
    engine: Engine, clock: Clock
) -> None:
    given_goods(engine)
    schedule = given_a_schedule(engine, cron="* * * * *", due="now() - interval '1 day'")
    clock.be_ahead(to_next_minute(engine) + dt.timedelta(seconds=0.1))
    make_due(engine)
    due_at = one(engine, "SELECT max(due_at) FROM catlog.catalog WHERE state = 'waiting'")
    clock.be_right()
    assert make_due(engine) == []
    assert next_due_at(engine, schedule) == due_at
    clock.be_ahead(due_at - now(engine) + dt.timedelta(seconds=1))
    assert make_due(engine) == []
    assert one(engine, "SELECT count(*) FROM catlog.catalog WHERE due_at = :due", due=due_at) == 1
    assert next_due_at(engine, schedule) == due_at + dt.timedelta(minutes=1)


def to_next_minute(engine: Engine) -> dt.timedelta:
    seconds = one(
        engine,
        "SELECT 60 - extract(second FROM clock_timestamp())::float8",
    )
    return dt.timedelta(seconds=seconds)


def test_catalog_that_started_ahead_is_claimed(engine: Engine, clock: Clock) -> None:
    given_goods(engine)
    clock.be_ahead(DAY)
    tick(engine, LEASE_S)
    catalog = given_a_catalog(engine)
    clock.be_right()
    assert claim(engine, "node", catalogs=[catalog]) == []
    tick(engine, LEASE_S)
    assert len(claim(engine, "node", catalogs=[catalog])) == 1


def test_backoff_of_an_attempt_that_failed_ahead_is_no_longer(engine: Engine, clock: Clock) -> None:
    given_goods(engine, backoff_base=100.0)
    clock.be_ahead(DAY)
    tick(engine, LEASE_S)
    catalog = given_a_catalog(engine)
    attempts.fail(engine, claim_of(engine, catalog).attempt, "the source is away")
    clock.be_right()
    tick(engine, LEASE_S)
    [waits] = sql(
        engine,
        """SELECT extract(epoch FROM available_at - clock_timestamp())::float AS s
           FROM catlog.catalog_scheme_operation_instance""",
    )
    assert 0 < waits["s"] <= 200


def test_lease_and_deadline_of_a_worker_that_died_ahead_expire(
    engine: Engine, clock: Clock
) -> None:
    given_goods(engine, timeout=600.0)
    clock.be_ahead(DAY)
    tick(engine, LEASE_S)
    catalog = given_a_catalog(engine)
    claimed = claim_of(engine, catalog, lease=LEASE_S)
    clock.be_right()
    tick(engine, LEASE_S)
    in_ten_minutes = now(engine) + dt.timedelta(minutes=10, seconds=STORE_INTERVAL_S)
    assert the_attempt(engine, claimed.attempt)["deadline_at"] <= in_ten_minutes
    assert the_attempt(engine, claimed.attempt)["outcome"] is None
    clock.be_ahead(dt.timedelta(seconds=LEASE_S + STORE_INTERVAL_S))
    tick(engine, LEASE_S)
    assert the_attempt(engine, claimed.attempt)["outcome"] == "lost"


def test_catalog_that_was_complete_ahead_is_published(engine: Engine, clock: Clock) -> None:
    given_goods(engine)
    clock.be_ahead(DAY)
    tick(engine, LEASE_S)
    catalog = given_a_catalog(engine)
    deliver(engine, claim_of(engine, catalog), {"k": 1})
    clock.be_right()
    assert publishing.publish_next(engine) is None
    tick(engine, LEASE_S)
    assert state_of(engine, catalog) == "loaded"


def test_waits_from_before_a_jump_are_not_longer_after_it(engine: Engine, clock: Clock) -> None:
    given_goods(engine)
    tick(engine, LEASE_S)
    catalog = given_a_catalog(engine)
    claimed = claim_of(engine, catalog, lease=600)
    before = the_attempt(engine, claimed.attempt)
    clock_was_ahead(engine, clock, dt.timedelta(seconds=300))
    assert the_attempt(engine, claimed.attempt) == before
    lease = one(
        engine,
        """SELECT extract(epoch FROM lease_expires_at - clock_timestamp())::float
           FROM catlog.catalog_scheme_operation_instance""",
    )
    assert LEASE_S - 10 < lease <= 600


def test_clock_may_jump_many_times(engine: Engine, clock: Clock) -> None:
    given_goods(engine)
    tick(engine, LEASE_S)
    for distance in (DAY, HOUR, YEAR, DAY):
        clock.be_ahead(distance)
        tick(engine, LEASE_S)
        catalog = given_a_catalog(engine)
        clock.be_right()
        tick(engine, LEASE_S)
        deliver(engine, claim_of(engine, catalog), {"k": str(distance)})
        tick(engine, LEASE_S)
        assert state_of(engine, catalog) == "loaded"
        assert current(engine) == {"k": str(distance)}


def test_no_more_run_than_allowed_after_a_clock_ahead(engine: Engine, clock: Clock) -> None:
    """A hint of a claim from the time ahead must not hide later claims."""
    given_a_provider(engine, max_running=2)
    given_goods(engine, for_each=[str(number) for number in range(6)])
    other = make_engine(engine.url.render_as_string(False))
    given_a_catalog(engine)
    clock.be_ahead(DAY)
    [first] = claim(engine, "node")
    attempts.release(engine, first.attempt)
    [again] = claim(engine, "node")
    attempts.release(engine, again.attempt)
    tick(engine, LEASE_S)
    clock.be_right()
    tick(engine, LEASE_S)
    assert len(claim(other, "other", limit=10)) == 2
    assert claim(engine, "node", limit=10) == []
    other.dispose()


def test_records_read_ahead_are_read_again_and_later_ones_stay_fresh(
    engine: Engine, clock: Clock
) -> None:
    given_goods(engine, refresh={"every": 3600, "by": "id"})
    clock.be_ahead(YEAR)
    load(engine, {"k": 1, "l": 1})
    clock.be_right()
    tick(engine, LEASE_S)
    assert fresh_records(engine, claim_of(engine, given_a_catalog(engine))) == {}
    load(engine, {"k": 1, "l": None})
    assert set(fresh_records(engine, claim_of(engine, given_a_catalog(engine)))) == {"k"}
    clock.be_ahead(2 * HOUR)
    assert fresh_records(engine, claim_of(engine, given_a_catalog(engine))) == {}


def test_loads_of_due_times_are_newer_than_one_of_a_due_time_ahead(
    engine: Engine, clock: Clock
) -> None:
    goods = an_operation(tolerate=TOLERANT, arguments=OF_THE_DAY)
    given_a_scheme(engine, goods, max_errors=1)
    given_a_schedule(engine, cron="0 3 * * *", due="now() - interval '2 days'")
    load_of_schedule(engine, {"k": 1})
    clock.be_ahead(30 * DAY)
    load_of_schedule(engine, {"k": 2})
    clock.be_right()
    make_due(engine)
    clock.be_ahead(DAY)
    [former] = make_due(engine)
    tick(engine, LEASE_S)
    attempts.fail(engine, claim_of(engine, former).attempt, "the source is away")
    clock.be_ahead(2 * DAY)
    latter = load_of_schedule(engine, {"k": 4})
    assert "stale" not in the_catalog(engine, latter)["published"]
    assert current(engine) == {"k": 4}
    catalogs.retry(engine, former)
    load_catalog(engine, former, {"k": 3, "l": 3})
    assert the_catalog(engine, former)["published"]["stale"] == 2
    assert current(engine) == {"k": 4}
    clock.be_ahead(3 * DAY)
    load_of_schedule(engine, {"k": 5})
    assert current(engine) == {"k": 5}
    assert_consistent(history(engine))


def load_of_schedule(engine: Engine, rows: dict[str, int]) -> UUID:
    [catalog] = make_due(engine)
    load_catalog(engine, catalog, rows)
    return catalog


def load_catalog(engine: Engine, catalog: UUID, rows: dict[str, int]) -> None:
    tick(engine, LEASE_S)
    assert deliver(engine, claim_of(engine, catalog), rows) == "done"
    tick(engine, LEASE_S)
    assert state_of(engine, catalog) == "loaded"
