"""Schedules: each due time creates one catalog, with two schedulers, edits and backfills."""

import datetime as dt
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, event, exc

from catlog_scrapy.exceptions import NotFound, NotPossible
from catlog_scrapy.store.queue import catalogs, starting
from catlog_scrapy.store.queue.schedules import due
from catlog_scrapy.store.queue.schedules.backfill import backfill
from catlog_scrapy.store.queue.schedules.due import make_due, make_due_in_steps
from tests.support.factories import (
    an_operation,
    at_once,
    claim_of,
    given_a_catalog,
    given_a_schedule,
    given_a_scheme,
    given_a_waiting_catalog,
    instances_of,
    load,
    one,
    sql,
    state_of,
    states_of,
    the_catalog,
)

OF_THE_DAY = {"date": "{due_at:%Y-%m-%d %H:%M}"}


def all_catalogs(engine: Engine) -> list[dict[str, Any]]:
    return sql(engine, "SELECT * FROM catlog.catalog ORDER BY due_at")


def states(engine: Engine) -> list[str]:
    return [catalog["state"] for catalog in all_catalogs(engine)]


def next_due_of(engine: Engine, schedule: UUID) -> dt.datetime:
    found: dt.datetime = one(
        engine, "SELECT next_due_at FROM catlog.schedule WHERE id = :id", id=schedule
    )
    return found


def test_schedulers_at_once_make_one_catalog_for_each_due_time(engine: Engine) -> None:
    given_a_scheme(engine)
    for number in range(50):
        given_a_schedule(engine, name=f"number {number}")
    made = [made for some in at_once(*[lambda: make_due(engine)] * 4) for made in some]
    assert len(made) == len(set(made)) == 50
    found = all_catalogs(engine)
    assert Counter(catalog["state"] for catalog in found) == {"waiting": 50}
    assert len({catalog["schedule_id"] for catalog in found}) == 50
    assert make_due(engine) == []


def test_schedules_beyond_a_step_are_made_in_further_steps(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(due, "MAX_SCHEDULES", 4)
    given_a_scheme(engine)
    for number in range(10):
        given_a_schedule(engine, name=f"number {number}")
    assert [len(made) for made in make_due_in_steps(engine)] == [4, 4, 2]


def test_missed_due_times_of_many_schedules_are_made_in_several_steps(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(due, "MAX_CATALOGS", 5)
    given_a_scheme(engine)
    for number in range(6):
        given_a_schedule(
            engine,
            name=f"number {number}",
            cron="0 * * * *",
            due="date_trunc('hour', now()) - interval '2 h'",
        )
    assert [len(made) for made in make_due_in_steps(engine)] == [2, 2, 2]
    assert Counter(states(engine)) == {"skipped": 12, "waiting": 6}


def test_scheduler_killed_between_statements_makes_each_due_time_once(engine: Engine) -> None:
    given_a_scheme(engine)
    for number in range(3):
        given_a_schedule(engine, name=f"number {number}")
    statements = Statements(engine)
    assert len(make_due(engine)) == 3
    count = statements.count
    sql(engine, "DELETE FROM catlog.catalog")
    sql(engine, "UPDATE catlog.schedule SET next_due_at = now()")
    for number in range(1, count + 1):
        with statements.kill_at(number), pytest.raises(exc.DBAPIError):
            make_due(engine)
        assert all_catalogs(engine) == []
    assert len(make_due(engine)) == 3
    assert make_due(engine) == []


class Statements:
    """Counts the statements of an engine, and ends the connection at a given one."""

    def __init__(self, engine: Engine) -> None:
        self.count = 0
        self.fatal: int | None = None
        event.listen(engine, "before_cursor_execute", self._before)

    def _before(self, _connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        self.count += 1
        if self.count == self.fatal:
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    @contextmanager
    def kill_at(self, number: int) -> Iterator[None]:
        """Let the statement *number* from here on fail."""
        self.count, self.fatal = 0, number
        yield
        self.fatal = None


def test_schedule_that_fails_in_the_database_does_not_stop_others(engine: Engine) -> None:
    given_a_scheme(engine)
    given_a_schedule(engine, name="wrong", due="now() - interval '1 s'", arguments='{"x": "1"}')
    for number in range(3):
        given_a_schedule(engine, name=f"number {number}")
    sql(
        engine,
        """ALTER TABLE catlog.catalog ADD CHECK (arguments ->> 'x' IS NULL)""",
    )
    assert len(make_due(engine)) == 3
    assert Counter(states(engine)) == {"waiting": 3, "skipped": 1}
    assert make_due(engine) == []


def test_due_schedules_alone_make_catalogs(engine: Engine) -> None:
    given_a_scheme(engine)
    due = given_a_schedule(engine, due="date_trunc('minute', now())")
    given_a_schedule(engine, name="later", due="now() + interval '1 minute'")
    given_a_schedule(engine, name="off", enabled=False)
    at = next_due_of(engine, due)
    [made] = make_due(engine)
    catalog = the_catalog(engine, made)
    assert (catalog["schedule_id"], catalog["due_at"]) == (due, at)
    assert (catalog["origin"], catalog["is_full"], catalog["as_of"]) == ("schedule", True, None)
    assert next_due_of(engine, due) > one(engine, "SELECT now()")


def test_due_time_with_a_catalog_makes_no_second_catalog(engine: Engine) -> None:
    """The time is due again after a clock was set back, or after an edit of the cron line."""
    given_a_scheme(engine)
    schedule = given_a_schedule(engine)
    at = next_due_of(engine, schedule)
    [made] = make_due(engine)
    catalogs.cancel(engine, made)
    sql(engine, "UPDATE catlog.schedule SET cron = '*/5 * * * *', next_due_at = :at", at=at)
    assert make_due(engine) == []
    assert len(all_catalogs(engine)) == 1
    assert next_due_of(engine, schedule) > at


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"arguments": '{"token": "x1x"}'}, "not created: the argument 'token'"),
        ({"timezone": "Nowhere/City"}, "not created: .*Nowhere/City"),
    ],
)
def test_schedule_that_cannot_make_a_catalog_does_not_stop_others(
    engine: Engine, wrong: dict[str, str], said: str
) -> None:
    given_a_scheme(engine)
    sql(engine, """UPDATE catlog.provider SET secrets = '["token"]'""")
    given_a_schedule(engine, name="wrong", due="now() - interval '1 s'", **wrong)
    given_a_schedule(engine, name="right", due="now()")
    [made] = make_due(engine)
    trace, right = all_catalogs(engine)
    assert (right["id"], right["state"]) == (made, "waiting")
    assert (trace["state"], trace["arguments"]) == ("skipped", {})
    assert re.match(said, trace["error"]), trace["error"]
    assert make_due(engine) == []
    assert len(all_catalogs(engine)) == 2


def test_catch_up_latest_makes_one_catalog_and_records_skipped_ones(
    engine: Engine,
) -> None:
    given_a_scheme(engine)
    given_a_schedule(engine, cron="0 * * * *", due="date_trunc('hour', now()) - interval '3 h'")
    assert len(make_due(engine)) == 1
    assert states(engine) == ["skipped", "skipped", "skipped", "waiting"]
    skipped = all_catalogs(engine)[0]
    assert skipped["error"].startswith("missed")
    assert skipped["finished_at"]


def test_catch_up_none_skips_all_missed_due_times(engine: Engine) -> None:
    given_a_scheme(engine)
    due = "date_trunc('day', now()) - interval '2 days 30 minutes'"
    given_a_schedule(engine, cron="30 23 * * *", due=due, catch_up="none")
    # At half past eleven the latest of them is not missed.
    sql(engine, "UPDATE catlog.schedule SET cron = '30 23 1 1 *'")
    assert make_due(engine) == []
    assert set(states(engine)) == {"skipped"}


def test_catch_up_none_makes_the_catalog_that_is_due_now(engine: Engine) -> None:
    given_a_scheme(engine)
    given_a_schedule(engine, due="now() - interval '1 minute'", catch_up="none")
    assert len(make_due(engine)) == 1


def test_schedule_of_every_minute_that_was_off_for_years_catches_up_at_once(
    engine: Engine,
) -> None:
    given_a_scheme(engine)
    given_a_schedule(engine, cron="* * * * *", due="now() - interval '3 years'")
    started = time.process_time()
    assert len(make_due(engine)) == 1
    assert time.process_time() - started < 2
    assert Counter(states(engine)) == {"skipped": 1000, "waiting": 1}
    assert all_catalogs(engine)[0]["due_at"] > one(engine, "SELECT now() - interval '17 hours'")


def test_many_schedules_that_were_off_for_years_catch_up_in_bounded_steps(
    engine: Engine,
) -> None:
    given_a_scheme(engine)
    zones = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]
    for number in range(8):
        given_a_schedule(
            engine,
            name=f"number {number}",
            cron="* * * * *",
            timezone=zones[number % len(zones)],
            due="now() - interval '3 years'",
        )
    seconds, made = [], 0
    steps = make_due_in_steps(engine)
    while True:
        started = time.process_time()
        step = next(steps, None)
        if step is None:
            break
        seconds.append(time.process_time() - started)
        made += len(step)
    assert made == 8
    assert len(seconds) == 4
    assert max(seconds) < 4
    assert Counter(states(engine)) == {"skipped": 8000, "waiting": 8}


def test_rare_schedule_that_was_off_for_decades_catches_up_at_once(engine: Engine) -> None:
    given_a_scheme(engine)
    given_a_schedule(engine, cron="0 0 29 2 *", due="timestamptz '1996-02-29'")
    started = time.process_time()
    assert len(make_due(engine)) == 1
    assert time.process_time() - started < 2
    due_times = [catalog["due_at"].year for catalog in all_catalogs(engine)]
    assert due_times == list(range(1996, 2025, 4))


def test_missed_due_times_store_at_most_1000_skipped_catalogs(engine: Engine) -> None:
    given_a_scheme(engine)
    given_a_schedule(engine, cron="* * * * *", due="now() - interval '20 hours'")
    assert len(make_due(engine)) == 1
    assert Counter(states(engine)) == {"skipped": 1000, "waiting": 1}


@pytest.mark.parametrize("state", ["waiting", "loading", "publishing"])
def test_due_time_is_skipped_while_the_previous_catalog_is_open(engine: Engine, state: str) -> None:
    given_a_scheme(engine)
    now = dt.datetime.now(dt.UTC)
    # At any hour but this one and the last: no second due time has passed.
    cron = f"0 {(now.hour + 12) % 24} * * *"
    schedule = given_a_schedule(engine, cron=cron, due="now() - interval '1 hour'")
    given_a_waiting_catalog(
        engine, origin="schedule", schedule_id=schedule, due_at=now, state=state
    )
    assert make_due(engine) == []
    skipped = all_catalogs(engine)[0]
    assert (skipped["state"], skipped["error"]) == (
        "skipped",
        "skipped: the previous catalog was still open",
    )


def test_schedule_without_a_scheme_does_not_stop_others(engine: Engine) -> None:
    given_a_scheme(engine)
    given_a_schedule(engine, scheme="gone", name="gone")
    given_a_schedule(engine)
    assert len(make_due(engine)) == 1
    assert make_due(engine) == []


def test_the_due_time_is_rendered_in_the_schedules_time_zone(engine: Engine) -> None:
    given_a_scheme(engine, an_operation(arguments=OF_THE_DAY))
    due = "'2026-07-01 22:30:00Z'::timestamptz"
    given_a_schedule(engine, due=due, timezone="Europe/Moscow", cron="30 1 2 7 *")
    made = make_due(engine)
    starting.start_waiting(engine)
    [instance] = instances_of(engine, made[0])
    assert instance["arguments"]["date"].endswith("07-02 01:30")
    assert the_catalog(engine, made[0])["as_of"] == the_catalog(engine, made[0])["due_at"]


def test_scheduled_parent_passes_its_due_time_to_children(engine: Engine) -> None:
    given_a_scheme(engine, an_operation(arguments=OF_THE_DAY))
    given_a_scheme(engine, name="all", includes=["goods"])
    given_a_schedule(engine, scheme="all", timezone="Europe/Moscow", cron="30 1 2 7 *")
    at = one(engine, "UPDATE catlog.schedule SET next_due_at = now() RETURNING next_due_at")
    [parent] = make_due(engine)
    starting.start_waiting(engine)
    starting.start_waiting(engine)
    child = one(engine, "SELECT id FROM catlog.catalog WHERE parent_id = :id", id=parent)
    [instance] = instances_of(engine, child)
    local = at.astimezone(dt.timezone(dt.timedelta(hours=3)))
    assert instance["arguments"]["date"] == f"{local:%Y-%m-%d %H:%M}"
    assert the_catalog(engine, child)["as_of"] == at


# Parts: an operation for each record or word


def test_an_operation_runs_for_each_record_with_its_fields(engine: Engine) -> None:
    given_a_scheme(engine, an_operation("links"), name="links")
    load(engine, {"a": "http://a.example", "b": "http://b.example"}, scheme="links")
    load(engine, {"b": "http://b.example"}, scheme="links")
    arguments = {"url": "{value}", "name": "{part}"}
    given_a_scheme(engine, an_operation(for_each="links", arguments=arguments))
    [instance] = instances_of(engine, given_a_catalog(engine))
    assert instance["part"] == "b"
    assert instance["arguments"] == {"url": "http://b.example", "name": "b"}


def test_argument_limits_the_parts_of_an_operation(engine: Engine) -> None:
    given_a_scheme(engine, an_operation("links"), name="links")
    load(engine, {"a": 1973, "b": 1974, "c": 1974}, scheme="links")
    given_a_scheme(engine, an_operation(for_each="links"))
    narrowed = given_a_catalog(engine, arguments={"value": "1974"})
    assert [each["part"] for each in instances_of(engine, narrowed)] == ["b", "c"]
    assert not the_catalog(engine, narrowed)["is_full"]
    assert state_of(engine, given_a_catalog(engine, arguments={"value": "1900"})) == "failed"


def test_for_each_operation_can_load_a_single_part(engine: Engine) -> None:
    given_a_scheme(engine, an_operation(for_each=["north", "south"], arguments={"in": "{part}"}))
    both = instances_of(engine, given_a_catalog(engine))
    assert [each["arguments"] for each in both] == [{"in": "north"}, {"in": "south"}]
    [one_part] = instances_of(engine, given_a_catalog(engine, arguments={"part": "south"}))
    assert one_part["part"] == "south"


def test_standalone_argument_needs_no_part(engine: Engine) -> None:
    given_a_scheme(engine, an_operation("links"), name="links")
    arguments = {
        "at": "{part}",
        "year": "{value}",
        "both": "{due_at:%d}{value}",
        "on": "{due_at:%Y-%m-%d}",
        "fixed": "yes",
    }
    operation = an_operation(
        for_each="links", arguments=arguments, standalone_arguments=["sku", "url"]
    )
    given_a_scheme(engine, operation)
    asked = {"url": "http://a.example", "year": "1973"}
    catalog = given_a_catalog(engine, arguments=asked)
    assert not the_catalog(engine, catalog)["is_full"]
    [instance] = instances_of(engine, catalog)
    today = the_catalog(engine, catalog)["created_at"].astimezone(dt.UTC)
    assert instance["part"] == ""
    assert instance["arguments"] == {**asked, "on": f"{today:%Y-%m-%d}", "fixed": "yes"}

    # Without such an argument it runs for each link, and there are none.
    assert state_of(engine, given_a_catalog(engine, arguments={"year": "1973"})) == "failed"
    load(engine, {"a": 1973, "b": 1974}, scheme="links")
    assert len(instances_of(engine, given_a_catalog(engine))) == 2
    assert len(instances_of(engine, given_a_catalog(engine, arguments={"sku": "1"}))) == 1


def test_standalone_arguments_are_shown_before_the_run(engine: Engine) -> None:
    operation = an_operation(
        for_each=["north"], arguments={"in": "{part}"}, standalone_arguments=["url"]
    )
    given_a_scheme(engine, operation)
    [instance] = starting.plan(engine, "acme", "goods", None, {"url": "http://a.example"})
    assert (instance["part"], instance["arguments"]) == ("", {"url": "http://a.example"})


# Predecessors in `after`


def test_catalog_waits_while_its_predecessor_scheme_is_loading(engine: Engine) -> None:
    given_a_scheme(engine, an_operation("links"), name="links")
    given_a_scheme(engine, after="links")
    links = given_a_catalog(engine, scheme="links")
    waiting = given_a_waiting_catalog(engine)
    given_a_catalog(engine, scheme="links")  # a later one, of no concern
    assert starting.start_waiting(engine) == 0
    catalogs.cancel(engine, links)
    assert starting.start_waiting(engine) == 1
    assert states_of(engine, waiting) == ["new"]


def test_catalog_waits_for_a_predecessor_that_is_due_but_not_made(engine: Engine) -> None:
    given_a_scheme(engine, an_operation("links"), name="links")
    given_a_scheme(engine, after="links")
    schedule = given_a_schedule(engine)
    links = given_a_schedule(engine, scheme="links", due="now() + interval '1 hour'")
    [waiting] = make_due(engine)
    at = the_catalog(engine, waiting)["due_at"]
    sql(engine, "UPDATE catlog.schedule SET next_due_at = :at WHERE id = :id", at=at, id=links)
    assert starting.start_waiting(engine) == 0
    [made] = make_due(engine)
    assert starting.start_waiting(engine) == 1
    assert (state_of(engine, made), state_of(engine, waiting)) == ("loading", "waiting")
    assert schedule != links


def test_catalogs_that_start_together_do_not_stop_each_other(engine: Engine) -> None:
    given_a_scheme(engine, an_operation(for_each=["a", "b"]))
    given_a_scheme(engine, an_operation(arguments={"day": "{nothing}"}), name="wrong")
    made = [given_a_waiting_catalog(engine, scheme=name) for name in ("goods", "wrong", "goods")]
    assert starting.start_waiting(engine) == 3
    assert [state_of(engine, catalog) for catalog in made] == ["loading", "failed", "loading"]
    assert [len(instances_of(engine, catalog)) for catalog in made] == [2, 0, 2]
    assert "cannot be rendered" in the_catalog(engine, made[1])["error"]


def test_catalog_that_fails_in_the_database_does_not_stop_others(engine: Engine) -> None:
    given_a_scheme(engine)
    sql(
        engine,
        """ALTER TABLE catlog.catalog_scheme_operation_instance
           ADD CHECK (arguments ->> 'x' IS NULL)""",
    )
    wrong = given_a_waiting_catalog(engine, arguments={"x": "1"})
    right = given_a_waiting_catalog(engine)
    starting.start_waiting(engine)
    assert (state_of(engine, wrong), state_of(engine, right)) == ("failed", "loading")


def test_starters_at_once_start_each_catalog_once(engine: Engine) -> None:
    given_a_scheme(engine)
    made = [given_a_waiting_catalog(engine) for _ in range(50)]
    started = at_once(*[lambda: starting.start_waiting(engine)] * 4)
    assert sum(started) == 50
    assert all(len(instances_of(engine, catalog)) == 1 for catalog in made)


# Backfill

FIRST, LAST = dt.date(2026, 7, 1), dt.date(2026, 7, 3)


def given_a_daily_scheme(engine: Engine) -> UUID:
    given_a_scheme(engine, an_operation(arguments=OF_THE_DAY))
    due = "now() + interval '1 day'"
    return given_a_schedule(engine, cron="30 1 * * *", timezone="Europe/Moscow", due=due)


def since(engine: Engine, days: int) -> tuple[dt.date, dt.date]:
    today = one(engine, "SELECT (now() AT TIME ZONE 'Europe/Moscow')::date")
    return today - dt.timedelta(days=days), today - dt.timedelta(days=1)


def test_a_backfill_makes_a_catalog_for_each_past_due_time(engine: Engine) -> None:
    given_a_daily_scheme(engine)
    first, last = since(engine, 3)
    made, present = backfill(engine, "acme", "goods", first, last)
    assert (len(made), present) == (3, 0)
    for catalog in all_catalogs(engine):
        assert catalog["as_of"] == catalog["due_at"]
        assert (catalog["state"], catalog["origin"]) == ("waiting", "backfill")
    starting.start_waiting(engine)
    assert claim_of(engine, made[0]).arguments["date"] == f"{first} 01:30"
    assert backfill(engine, "acme", "goods", first, last) == ([], 3)


def test_backfill_restores_skipped_catalogs(engine: Engine) -> None:
    schedule = given_a_daily_scheme(engine)
    first, last = since(engine, 1)
    moscow = dt.timezone(dt.timedelta(hours=3))
    due_at = dt.datetime.combine(first, dt.time(1, 30), moscow)
    given_a_scheme(engine, version=2)
    skipped = given_a_waiting_catalog(
        engine, origin="schedule", schedule_id=schedule, due_at=due_at, state="skipped"
    )
    assert the_catalog(engine, skipped)["as_of"] is None
    given_a_scheme(engine, an_operation(arguments=OF_THE_DAY), version=3)
    assert backfill(engine, "acme", "goods", first, last) == ([skipped], 0)
    revived = the_catalog(engine, skipped)
    assert (revived["state"], revived["error"], revived["finished_at"]) == ("waiting", None, None)
    assert revived["as_of"] == due_at


def test_backfill_of_a_scheme_without_due_times_is_refused(engine: Engine) -> None:
    given_a_scheme(engine)
    with pytest.raises(NotPossible, match="has no schedule"):
        backfill(engine, "acme", "goods", FIRST, LAST)
    given_a_schedule(engine)
    with pytest.raises(NotPossible, match="does not use"):
        backfill(engine, "acme", "goods", FIRST, LAST)
    with pytest.raises(NotFound, match="no scheme"):
        backfill(engine, "acme", "gone", FIRST, LAST)


def test_backfill_of_too_many_due_times_is_refused(engine: Engine) -> None:
    given_a_scheme(engine, an_operation(arguments=OF_THE_DAY))
    given_a_schedule(engine, cron="* * * * *")
    first, last = dt.date(2023, 1, 1), dt.date(2025, 12, 31)
    with pytest.raises(NotPossible, match="more than 10000 due times"):
        backfill(engine, "acme", "goods", first, last)
    assert all_catalogs(engine) == []


def test_a_backfill_of_the_future_is_refused(engine: Engine) -> None:
    given_a_daily_scheme(engine)
    far = dt.date(2999, 1, 1)
    with pytest.raises(NotFound, match="was not due"):
        backfill(engine, "acme", "goods", far, far)
    assert all_catalogs(engine) == []
