"""Ends of attempts: complete, incomplete, lost, late and fenced attempts."""

from typing import Any

import pytest
from sqlalchemy import Engine

from catlog_scrapy.exceptions import NotFound
from catlog_scrapy.store.maintenance.reap import reap
from catlog_scrapy.store.publishing import publish as publishing
from catlog_scrapy.store.queue import attempts, catalogs
from catlog_scrapy.store.queue.attempts import AttemptName
from catlog_scrapy.store.queue.claims import Claim, claim
from catlog_scrapy.store.queue.leases import heartbeat
from catlog_scrapy.store.queue.report import Report
from catlog_scrapy.store.sql import Transaction, run, scalar
from tests.support.factories import (
    an_operation,
    claim_all,
    claim_of,
    current,
    deliver,
    expire_lease,
    given_a_catalog,
    given_a_scheme,
    instances_of,
    one,
    send,
    send_rows,
    sql,
    state_of,
    states_of,
    the_attempt,
    the_catalog,
)

PARTS = ["north", "south", "west"]
# The tests' server has just started, and reaping keeps one lease away from that.
NO_LEASE = -1.0


def reaped(engine: Engine) -> int:
    return reap(engine, lease=NO_LEASE)


def given_a_claim(engine: Engine, **columns: Any) -> Claim:
    given_a_scheme(engine, an_operation(**columns))
    return claim_of(engine, given_a_catalog(engine))


def lose(engine: Engine, claimed: Claim) -> None:
    expire_lease(engine, claimed)
    assert reaped(engine) == 1


def everything(engine: Engine) -> dict[str, list[dict[str, Any]]]:
    """Return all rows that an attempt could change."""
    names = ("catalog", "catalog_scheme_operation_instance", "instance_attempt")
    return {name: sql(engine, f"SELECT * FROM catlog.{name} ORDER BY 1, 2") for name in names}


def test_a_complete_attempt_is_done(engine: Engine) -> None:
    found = given_a_claim(engine)
    assert deliver(engine, found, {"a": 1, "b": 2}) == "done"
    attempt = the_attempt(engine, found.attempt)
    assert (attempt["outcome"], attempt["accepted"], attempt["error"]) == ("done", 2, None)
    assert attempt["finished_at"] > attempt["started_at"]
    assert state_of(engine, found.catalog) == "publishing"
    [instance] = instances_of(engine, found.catalog)
    assert (instance["state"], instance["node"]) == ("done", None)


@pytest.mark.parametrize(
    ("report", "outcome", "error"),
    [
        (Report(reason="shutdown"), "failed", "closed with 'shutdown'"),
        (Report(raised=1, errors=["it broke"]), "failed", "it broke"),
        (Report(failed_requests=1), "incomplete", "1 request failed"),
        (Report(blocked_by_robots=1), "incomplete", "1 request blocked by robots.txt"),
        (Report(rejected=1), "incomplete", "1 item rejected"),
        (Report(accepted=0), "incomplete", "at least 1 expected"),
        (Report(accepted=1), "incomplete", "1 result accepted, but 0 stored"),
    ],
)
def test_an_incomplete_attempt_says_why(
    engine: Engine, report: Report, outcome: str, error: str
) -> None:
    found = given_a_claim(engine, min_results=1)
    assert attempts.complete(engine, found.attempt, report) == outcome
    attempt = the_attempt(engine, found.attempt)
    assert attempt["outcome"] == outcome
    assert error in attempt["error"]
    assert states_of(engine, found.catalog) == ["new"]
    assert the_catalog(engine, found.catalog)["errors"] == 1


def test_attempt_with_fewer_stored_than_accepted_results_is_incomplete(engine: Engine) -> None:
    found = given_a_claim(engine)
    send(engine, found, {"a": 1, "b": 2})
    assert attempts.complete(engine, found.attempt, Report(accepted=3)) == "incomplete"
    assert "3 results accepted, but 2 stored" in the_attempt(engine, found.attempt)["error"]


def test_rows_of_a_former_attempt_do_not_count(engine: Engine) -> None:
    former = given_a_claim(engine)
    send(engine, former, {"a": 1, "b": 2})
    attempts.fail(engine, former.attempt, "it broke")
    again = claim_of(engine, former.catalog)
    assert attempts.complete(engine, again.attempt, Report(accepted=2)) == "incomplete"


def test_an_attempt_is_judged_by_the_limits_it_began_with(engine: Engine) -> None:
    found = given_a_claim(engine, tolerate={"rejected": 1})
    sql(engine, "UPDATE catlog.catalog_scheme_operation SET tolerate = '{}', min_results = 9")
    assert attempts.complete(engine, found.attempt, Report(rejected=1)) == "done"


def test_limits_of_the_claim_need_not_be_read_again(engine: Engine) -> None:
    found = given_a_claim(engine, tolerate={"rejected": 1})
    send(engine, found, {"a": 1})
    sql(engine, "UPDATE catlog.instance_attempt SET limits = '{}'")
    report = Report(accepted=1, rejected=1)
    assert attempts.complete(engine, found.attempt, report, found.limits) == "done"


def test_unstorable_scrapy_stats_are_converted(engine: Engine) -> None:
    found = given_a_claim(engine)
    stats = {"start": the_catalog(engine, found.catalog)["created_at"], 5: {1}, "nul": "\0"}
    report = Report(stats=stats, reason="bad\0\ud800", log="/var/log/x")
    assert attempts.complete(engine, found.attempt, report) == "failed"
    attempt = the_attempt(engine, found.attempt)
    assert attempt["stats"].keys() == {"start", "5", "nul"}
    assert attempt["log"] == "/var/log/x"


def test_second_end_of_an_attempt_changes_nothing(engine: Engine) -> None:
    found = given_a_claim(engine)
    deliver(engine, found, {"a": 1})
    before = everything(engine)
    assert attempts.complete(engine, found.attempt, Report(accepted=7)) == "done"
    assert attempts.fail(engine, found.attempt, "too late") == "done"
    assert everything(engine) == before


def test_a_catalog_is_published_when_its_last_instance_is_done(engine: Engine) -> None:
    given_a_scheme(engine, an_operation(for_each=PARTS))
    catalog = given_a_catalog(engine)
    for found in claim_all(engine, catalog):
        assert state_of(engine, catalog) == "loading"
        deliver(engine, found)
    assert state_of(engine, catalog) == "publishing"


def test_catalog_at_max_errors_fails_and_cancels_its_other_instances(engine: Engine) -> None:
    given_a_scheme(engine, an_operation(for_each=PARTS), max_errors=3)
    catalog = given_a_catalog(engine)
    north, south, _ = claim_all(engine, catalog)
    deliver(engine, south)
    for number in (1, 2, 3):
        assert attempts.fail(engine, north.attempt, f"broken {number}") == "failed"
        if number < 3:
            assert the_catalog(engine, catalog)["errors"] == number
            north = claim_of(engine, catalog)
            assert north.part == "north"
    failed = the_catalog(engine, catalog)
    assert (failed["state"], failed["errors"]) == ("failed", 3)
    assert failed["error"] == "3 attempts failed; first error: broken 1; last error: broken 3"
    assert failed["finished_at"]
    assert states_of(engine, catalog) == ["failed", "done", "cancelled"]


def test_errors_of_all_instances_count_together(engine: Engine) -> None:
    given_a_scheme(engine, an_operation(for_each=PARTS), max_errors=3)
    catalog = given_a_catalog(engine)
    for found in claim_all(engine, catalog):
        attempts.fail(engine, found.attempt, f"{found.part} broke")
    assert state_of(engine, catalog) == "failed"
    assert states_of(engine, catalog) == ["cancelled", "cancelled", "failed"]


def test_a_failed_instance_waits_longer_each_time(engine: Engine) -> None:
    found = given_a_claim(engine, backoff_base=100.0, backoff_cap=300.0)
    for expected in (100, 200, 300):
        attempts.fail(engine, found.attempt, "it broke")
        waits = one(
            engine,
            """SELECT extract(epoch FROM available_at - clock_timestamp())
               FROM catlog.catalog_scheme_operation_instance""",
        )
        assert 0.89 * expected < waits < 1.1 * expected
        sql(engine, "UPDATE catlog.catalog_scheme_operation_instance SET available_at = now()")
        found = claim_of(engine, found.catalog)


def test_lost_attempt_costs_no_error_and_is_repeated(engine: Engine) -> None:
    found = given_a_claim(engine)
    lose(engine, found)
    attempt = the_attempt(engine, found.attempt)
    assert (attempt["outcome"], attempt["error"]) == ("lost", "its worker on node vanished")
    assert the_catalog(engine, found.catalog)["errors"] == 0
    assert claim_of(engine, found.catalog).attempt.number == 2


def test_catalog_of_an_instance_lost_three_times_in_a_row_fails(engine: Engine) -> None:
    found = given_a_claim(engine)
    catalog = found.catalog
    for _ in range(2):
        lose(engine, found)
        found = claim_of(engine, catalog)
    lose(engine, found)
    failed = the_catalog(engine, catalog)
    assert (failed["state"], states_of(engine, catalog)) == ("failed", ["failed"])
    assert "lost 3 times in a row" in failed["error"]


def test_failed_attempt_restarts_the_count_of_lost_attempts(engine: Engine) -> None:
    found = given_a_claim(engine)
    for _ in range(2):
        lose(engine, found)
        found = claim_of(engine, found.catalog)
    attempts.fail(engine, found.attempt, "it broke")
    lose(engine, claim_of(engine, found.catalog))
    assert state_of(engine, found.catalog) == "loading"


def test_released_attempt_costs_no_error(engine: Engine) -> None:
    found = given_a_claim(engine)
    for number in range(1, 8):
        assert attempts.release(engine, found.attempt) == "released"
        found = claim_of(engine, found.catalog)
        assert found.attempt.number == number + 1
    assert the_catalog(engine, found.catalog)["errors"] == 0
    assert instances_of(engine, found.catalog)[0]["failures"] == 0


def ways_to_end(engine: Engine, name: AttemptName) -> list[str]:
    """End an attempt in every way, as a worker that wakes up late; return the outcomes."""
    return [
        attempts.complete(engine, name, Report(accepted=1)),
        attempts.fail(engine, name, "too late"),
        attempts.release(engine, name),
        heartbeat(engine, [name])[name],
    ]


def test_reaped_worker_changes_nothing(engine: Engine) -> None:
    stale = given_a_claim(engine)
    send(engine, stale, {"a": "old"})
    lose(engine, stale)
    before = everything(engine)
    assert ways_to_end(engine, stale.attempt) == ["lost"] * 4
    assert everything(engine) == before


def test_reaped_worker_changes_nothing_during_and_after_a_newer_attempt(engine: Engine) -> None:
    stale = given_a_claim(engine)
    lose(engine, stale)
    newer = claim_of(engine, stale.catalog)
    before = everything(engine)
    assert ways_to_end(engine, stale.attempt) == ["lost"] * 4
    assert everything(engine) == before
    deliver(engine, newer, {"a": "new"})
    before = everything(engine)
    assert ways_to_end(engine, stale.attempt) == ["lost"] * 4
    assert everything(engine) == before


def test_a_late_renewal_before_the_reap_is_honoured(engine: Engine) -> None:
    found = given_a_claim(engine)
    expire_lease(engine, found)
    assert heartbeat(engine, [found.attempt]) == {found.attempt: "go"}
    assert reaped(engine) == 0
    assert deliver(engine, found, {"a": 1}) == "done"


def test_late_end_before_the_reap_is_honoured(engine: Engine) -> None:
    found = given_a_claim(engine)
    expire_lease(engine, found)
    assert deliver(engine, found, {"a": 1}) == "done"
    assert reaped(engine) == 0


def test_no_attempt_is_reaped_within_a_lease_of_the_server_start(engine: Engine) -> None:
    found = given_a_claim(engine)
    expire_lease(engine, found)
    assert reap(engine, lease=1e6) == 0
    assert heartbeat(engine, [found.attempt]) == {found.attempt: "go"}


def test_heartbeat_beyond_the_deadline_times_out_and_renews_no_lease(
    engine: Engine,
) -> None:
    found = given_a_claim(engine, timeout=-1.0)
    lease = instances_of(engine, found.catalog)[0]["lease_expires_at"]
    assert heartbeat(engine, [found.attempt], lease=600) == {found.attempt: "timed_out"}
    assert instances_of(engine, found.catalog)[0]["lease_expires_at"] == lease
    error = "it ran past its time limit"
    assert attempts.fail(engine, found.attempt, error, outcome="timed_out") == "timed_out"
    assert the_catalog(engine, found.catalog)["errors"] == 1


def test_reap_times_out_an_attempt_beyond_its_deadline(
    engine: Engine,
) -> None:
    found = given_a_claim(engine, timeout=-1.0)
    lose(engine, found)
    assert the_attempt(engine, found.attempt)["outcome"] == "timed_out"
    assert the_catalog(engine, found.catalog)["errors"] == 1


def test_only_the_heartbeat_commits_without_waiting_for_the_disk(engine: Engine) -> None:
    with engine.connect() as connection:
        run(connection, "SET synchronous_commit = local")
        connection.commit()
        heartbeat(Transaction(connection), [given_a_claim(engine).attempt])
        assert scalar(connection, "SHOW synchronous_commit") == "off"
        connection.commit()
        assert scalar(connection, "SHOW synchronous_commit") == "local"


def test_heartbeat_returns_an_instruction_for_each_attempt(engine: Engine) -> None:
    given_a_scheme(engine, an_operation(for_each=[*PARTS, "east"]))
    stopped = claim_of(engine, given_a_catalog(engine))
    catalogs.cancel(engine, stopped.catalog)
    catalog = given_a_catalog(engine)
    east, north, south, _ = claim_all(engine, catalog)
    deliver(engine, north)
    lose(engine, south)
    unknown = AttemptName(catalog, 1)
    names = [each.attempt for each in (east, north, south, stopped)]
    answers = heartbeat(engine, [*names, unknown])
    assert [answers[name] for name in names] == ["go", "lost", "lost", "cancel"]
    assert answers[unknown] == "lost"
    assert heartbeat(engine, []) == {}


def test_attempt_cancelled_by_its_worker_alone_is_lost(engine: Engine) -> None:
    """The worker reports a cancelled attempt; the catalog must not wait for the worker."""
    found = given_a_claim(engine)
    assert attempts.fail(engine, found.attempt, "stopped", outcome="cancelled") == "lost"
    assert claim_of(engine, found.catalog).attempt.number == 2


def test_attempt_that_ends_after_a_cancel_is_cancelled(engine: Engine) -> None:
    given_a_scheme(engine, an_operation(for_each=PARTS))
    catalog = given_a_catalog(engine)
    north, south, west = claim_all(engine, catalog)
    catalogs.cancel(engine, catalog)
    assert deliver(engine, north, {"a": 1}) == "cancelled"
    assert attempts.fail(engine, south.attempt, "it broke") == "cancelled"
    lose(engine, west)
    for each in (north, south, west):
        assert the_attempt(engine, each.attempt)["outcome"] == "cancelled"
    assert {each["node"] for each in instances_of(engine, catalog)} == {None}
    assert the_catalog(engine, catalog)["errors"] == 0


def test_unknown_attempt_name_is_refused(engine: Engine) -> None:
    found = given_a_claim(engine)
    with pytest.raises(NotFound, match="no attempt"):
        attempts.complete(engine, AttemptName(found.attempt.instance, 9), Report())
    with pytest.raises(NotFound, match="no attempt"):
        attempts.fail(engine, AttemptName(found.catalog, 1), "it broke")
    with pytest.raises(NotFound, match=r"INSTANCE\.NUMBER"):
        AttemptName.parse("x.1")
    assert AttemptName.parse(str(found.attempt)) == found.attempt


def test_claimed_or_done_instance_is_not_claimed_again(engine: Engine) -> None:
    found = given_a_claim(engine)
    assert claim(engine, "other") == []
    deliver(engine, found)
    assert claim(engine, "other") == []


def test_late_batch_of_an_older_attempt_is_not_published(engine: Engine) -> None:
    stale = given_a_claim(engine)
    lose(engine, stale)
    newer = claim_of(engine, stale.catalog)
    send_rows(engine, stale.attempt, "goods", [("a", "old")])
    assert deliver(engine, newer, {"a": "new"}) == "done"
    assert publishing.publish(engine, stale.catalog)
    assert current(engine) == {"a": "new"}
