"""Pruning by an operation's `keep`, and of the results of unfinished attempts."""

import datetime as dt
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from scrapy.settings import Settings
from sqlalchemy import Connection, Engine, event, exc, text

from catlog_scrapy.config import DEFAULTS
from catlog_scrapy.db.engine import make_engine
from catlog_scrapy.exceptions import NotPossible
from catlog_scrapy.store.maintenance import prune as pruning
from catlog_scrapy.store.maintenance import prune_catalogs, prune_results
from catlog_scrapy.store.maintenance.prune import PruneCounts, prune, prune_in_steps
from catlog_scrapy.store.maintenance.prune_counting import count_prunable
from catlog_scrapy.store.maintenance.reset import reset
from catlog_scrapy.store.maintenance.retention import LATEST_CATALOGS, Retention
from catlog_scrapy.store.publishing import publish as publishing
from catlog_scrapy.store.queue import attempts, catalogs, starting
from catlog_scrapy.store.queue.result_partitions import (
    DEFAULT_PARTITION,
    ResultPartition,
    create_partition,
    partitions,
    require_partitions,
)
from catlog_scrapy.store.queue.results import copy_batch, store_rejected
from catlog_scrapy.store.queue.schedules.backfill import backfill
from catlog_scrapy.store.queue.schedules.due import make_due
from catlog_scrapy.worker import pruning as scheduler_pruning
from catlog_scrapy.worker.pruning import Pruner
from tests.support.factories import (
    an_operation,
    at_once,
    claim_all,
    claim_of,
    current,
    deliver,
    given_a_catalog,
    given_a_schedule,
    given_a_scheme,
    given_a_waiting_catalog,
    history,
    load,
    one,
    provider_of,
    rows_for_copy,
    send,
    send_rows,
    sql,
    the_catalog,
)

WEEK = 7 * 86400.0
FOR_EVER = 1e12


def days_pass(engine: Engine, days: int) -> None:
    """Move the ends of catalogs and the times of versions *days* days back."""
    past = f"- {days} * interval '1 day'"
    sql(
        engine,
        f"UPDATE catlog.catalog SET finished_at = finished_at {past}, prune_at = prune_at {past}",
    )
    for kind in sql(engine, "SELECT DISTINCT name FROM catlog.kind"):
        sql(
            engine,
            f"""UPDATE records.{kind["name"]}_versions
                SET _valid_from = _valid_from {past}, _valid_to = _valid_to {past}""",
        )


def rows_of(engine: Engine, catalog: UUID) -> dict[str, int]:
    """Return the number of a catalog's remaining results, by operation."""
    found = sql(
        engine,
        """SELECT o.name, count(*) AS rows FROM catlog.catalog_operation_instance_result r
           JOIN catlog.catalog_scheme_operation_instance i ON i.id = r.instance_id
           JOIN catlog.catalog_scheme_operation o ON o.id = i.operation_id
           WHERE i.catalog_id = :id GROUP BY 1""",
        id=catalog,
    )
    return {operation["name"]: operation["rows"] for operation in found}


def test_each_operation_keeps_its_own_rows_for_its_own_time(engine: Engine) -> None:
    given_a_scheme(
        engine,
        an_operation("goods", keep=WEEK),
        an_operation("prices", keep=4 * WEEK),
        an_operation("stocks", keep=FOR_EVER),
    )
    catalog = load(engine, {"a": 1, "b": 2})["id"]
    assert prune(engine) == PruneCounts()
    days_pass(engine, 8)
    assert prune(engine).results == 2
    assert rows_of(engine, catalog) == {"prices": 2, "stocks": 2}
    assert the_catalog(engine, catalog)["purged_at"]
    days_pass(engine, 28)
    assert prune(engine).results == 2
    assert rows_of(engine, catalog) == {"stocks": 2}
    assert prune(engine) == PruneCounts()
    assert current(engine, "goods") == current(engine, "prices") == {"a": 1, "b": 2}


def test_catalog_that_is_kept_for_ever_can_always_be_retried(engine: Engine) -> None:
    given_a_scheme(engine, an_operation("goods", keep=FOR_EVER), max_errors=1)
    catalog = given_a_failed_catalog(engine)
    days_pass(engine, 1000)
    assert count_prunable(engine) == prune(engine) == PruneCounts()
    assert the_catalog(engine, catalog)["purged_at"] is None
    catalogs.retry(engine, catalog)


def given_a_failed_catalog(engine: Engine) -> UUID:
    """Return a failed catalog whose operation `goods`, or whose part `a`, is done."""
    catalog = given_a_catalog(engine)
    first, *others = claim_all(engine, catalog)
    if others:
        deliver(engine, first, {"a": 1})
    attempts.fail(engine, [first, *others][-1].attempt, "it broke")
    return catalog


def test_a_failed_catalog_without_its_rows_cannot_be_retried(engine: Engine) -> None:
    given_a_scheme(engine, an_operation(for_each=["a", "b"], keep=WEEK), max_errors=1)
    catalog = given_a_failed_catalog(engine)
    days_pass(engine, 8)
    assert prune(engine).results == 1
    with pytest.raises(NotPossible, match="was purged"):
        catalogs.retry(engine, catalog)


def test_catalog_that_is_being_retried_is_not_pruned(engine: Engine) -> None:
    given_a_scheme(engine, an_operation(for_each=["a", "b"], keep=WEEK), max_errors=1)
    catalog = given_a_failed_catalog(engine)
    days_pass(engine, 8)
    with engine.begin() as connection:
        connection.execute(text("SELECT 1 FROM catlog.catalog FOR NO KEY UPDATE"))
        assert prune(engine) == PruneCounts()
    catalogs.retry(engine, catalog)
    assert prune(engine) == PruneCounts()
    deliver(engine, claim_of(engine, catalog), {"b": 1})
    assert publishing.publish_next(engine) == catalog
    assert current(engine) == {"a": 1, "b": 1}


def test_dry_run_of_prune_counts_and_deletes_no_rows(engine: Engine) -> None:
    given_a_scheme(engine, an_operation(keep=WEEK))
    for rows in ({"a": 1, "b": 1}, {"a": 2, "b": 1}):
        catalog = given_a_catalog(engine)
        claimed = claim_of(engine, catalog)
        store_rejected(engine, claimed.attempt, [("http://a.example", "{}", ["no key"])])
        deliver(engine, claimed, rows)
        publishing.publish(engine, catalog)
    days_pass(engine, 8)
    before = everything(engine)
    counted = count_prunable(engine)
    assert counted == PruneCounts(results=4, rejected=2, versions=1)
    assert everything(engine) == before
    assert prune(engine) == counted
    assert [state["value"] for state in history(engine)] == [2, 1]


def everything(engine: Engine) -> dict[str, Any]:
    names = (
        "catalog",
        "catalog_operation_instance_result",
        "catalog_scheme_operation_instance",
        "rejected_result",
        "record_versions()",
    )
    return {name: one(engine, f"SELECT json_agg(t)::text FROM catlog.{name} t") for name in names}


def test_versions_are_kept_as_long_as_their_kind_is(engine: Engine) -> None:
    given_a_scheme(engine, an_operation("goods", keep=WEEK), an_operation("prices"))
    load(engine, {"a": 1})
    load(engine, {"a": 2})
    days_pass(engine, 8)
    assert prune(engine).versions == 1
    assert [(state["kind"], state["value"]) for state in history(engine)] == [
        ("goods", 2),
        ("prices", 1),
        ("prices", 2),
    ]


def test_results_of_failed_attempts_are_deleted_when_their_catalog_is_loaded(
    engine: Engine,
) -> None:
    given_a_scheme(engine)
    catalog = given_a_catalog(engine)
    failing = claim_of(engine, catalog)
    send(engine, failing, {"a": "half", "b": "half"})
    attempts.fail(engine, failing.attempt, "it broke")
    deliver(engine, claim_of(engine, catalog), {"a": 1})
    publishing.publish(engine, catalog)
    assert rows_of(engine, catalog) == {"goods": 1}


def test_batch_stored_after_the_end_of_its_attempt_is_pruned(engine: Engine) -> None:
    given_a_scheme(engine)
    catalog = given_a_catalog(engine)
    failing = claim_of(engine, catalog)
    attempts.fail(engine, failing.attempt, "it broke")
    send_rows(engine, failing.attempt, "goods", [("a", "late")])
    assert prune(engine) == PruneCounts()
    deliver(engine, claim_of(engine, catalog), {"a": 1})
    publishing.publish(engine, catalog)
    send_rows(engine, failing.attempt, "goods", [("b", "later"), ("c", "later")], first=1)
    assert prune(engine) == PruneCounts(unfinished=2)
    assert rows_of(engine, catalog) == {"goods": 1}
    assert the_catalog(engine, catalog)["purged_at"] is None


def test_running_attempt_of_a_cancelled_catalog_is_not_pruned(engine: Engine) -> None:
    given_a_scheme(engine)
    catalog = given_a_catalog(engine)
    running = claim_of(engine, catalog)
    send(engine, running, {"a": 1})
    catalogs.cancel(engine, catalog)
    assert prune(engine) == PruneCounts()
    attempts.fail(engine, running.attempt, "stopped", outcome="cancelled")
    assert prune(engine) == PruneCounts(unfinished=1)


def test_results_without_a_keep_are_deleted_after_30_days(engine: Engine) -> None:
    given_a_scheme(engine)
    catalog = load(engine, {"a": 1})["id"]
    load(engine, {"a": 2})
    days_pass(engine, 29)
    assert prune(engine) == PruneCounts()
    days_pass(engine, 2)
    assert count_prunable(engine) == PruneCounts(results=2)
    assert prune(engine, Retention(results=40 * 86400.0)) == PruneCounts()
    days_pass(engine, 7)
    assert prune(engine) == PruneCounts(results=2)
    assert rows_of(engine, catalog) == {}
    assert [state["value"] for state in history(engine)] == [1, 2]


def test_shorter_keep_takes_effect_within_a_week(engine: Engine) -> None:
    given_a_scheme(engine)
    catalog = load(engine, {"a": 1})["id"]
    prune(engine)
    looked_at = the_catalog(engine, catalog)["prune_at"]
    assert looked_at <= one(engine, "SELECT now() + interval '7 days'")
    sql(engine, "UPDATE catlog.catalog_scheme_operation SET keep = 3600")
    days_pass(engine, 7)
    assert prune(engine).results == 1


def test_rows_beyond_a_batch_are_pruned_in_further_batches(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (prune_results, pruning):
        monkeypatch.setattr(module, "MAX_ROWS", 2)
    given_a_scheme(engine, an_operation(keep=WEEK))
    load(engine, {str(number): number for number in range(5)})
    load(engine, {str(number): number + 1 for number in range(5)})
    days_pass(engine, 8)
    counted = count_prunable(engine)
    steps = list(prune_in_steps(engine, Retention(), pruned := PruneCounts()))
    assert pruned == counted == PruneCounts(results=10, versions=5)
    assert len(steps) > 8


# Partitions

OLD = 40


def given_an_old_catalog(engine: Engine, days: int = OLD, **given: Any) -> UUID:
    """Start a catalog whose instances seem to have been made *days* days ago."""
    catalog = given_a_catalog(engine, **given)
    create_partition(engine, partition_of_day(engine, days))
    sql(
        engine,
        """UPDATE catlog.catalog_scheme_operation_instance
           SET id = catlog.uuid7(now() - :days * interval '1 day') WHERE catalog_id = :catalog""",
        days=days,
        catalog=catalog,
    )
    sql(
        engine,
        """UPDATE catlog.catalog SET started_at = now() - :days * interval '1 day'
           WHERE id = :catalog""",
        days=days,
        catalog=catalog,
    )
    return catalog


def given_an_old_load(engine: Engine, days: int = OLD, **given: Any) -> UUID:
    """Load a catalog that ended *days* days ago."""
    catalog = given_an_old_catalog(engine, days, **given)
    for claimed in claim_all(engine, catalog):
        deliver(engine, claimed, {"a": 1, "b": 2})
    publishing.publish(engine, catalog)
    end_long_ago(engine, catalog, days)
    return catalog


def end_long_ago(engine: Engine, catalog: UUID, days: int = OLD) -> None:
    sql(
        engine,
        """UPDATE catlog.catalog SET finished_at = now() - :days * interval '1 day'
           WHERE id = :id""",
        days=days,
        id=catalog,
    )


def partition_of_day(engine: Engine, days: int) -> ResultPartition:
    """Return the partition of the day *days* days ago."""
    day = one(
        engine,
        "SELECT ((now() - :days * interval '1 day') AT TIME ZONE 'UTC')::date",
        days=days,
    )
    return ResultPartition(day)


def present_partitions(engine: Engine) -> list[ResultPartition]:
    with engine.connect() as connection:
        return partitions(connection)


def tables_of(engine: Engine) -> dict[str, int]:
    """Return the number of results in each partition that has any."""
    found = sql(
        engine,
        """SELECT tableoid::regclass::text AS name, count(*) AS rows
           FROM catlog.catalog_operation_instance_result GROUP BY 1""",
    )
    return {each["name"].rpartition(".")[2]: each["rows"] for each in found}


def test_start_of_a_catalog_makes_partitions_ahead(engine: Engine) -> None:
    assert present_partitions(engine) == []
    given_a_scheme(engine)
    load(engine, {"a": 1})
    assert present_partitions(engine) == [partition_of_day(engine, -day) for day in range(4)]
    assert tables_of(engine) == {partition_of_day(engine, 0).name: 1}


def test_schedulers_at_once_make_each_partition_once(engine: Engine) -> None:
    engines = [make_engine(engine.url.render_as_string(hide_password=False)) for _ in range(4)]
    at_once(*[lambda own=own: require_partitions(own) for own in engines])
    for own in engines:
        own.dispose()
    assert present_partitions(engine) == [partition_of_day(engine, -day) for day in range(4)]


def test_results_without_a_partition_are_loaded_and_pruned(engine: Engine) -> None:
    """A partition is missing: a lock was held, or a clock jumped."""
    given_a_scheme(engine, an_operation(keep=WEEK))
    catalog = given_a_waiting_catalog(engine)
    with engine.begin() as connection:
        connection.execute(
            text("LOCK catlog.catalog_operation_instance_result_default IN ACCESS SHARE MODE")
        )
        assert starting.start(engine, catalog)
    assert present_partitions(engine) == []
    deliver(engine, claim_of(engine, catalog), {"a": 1})
    publishing.publish(engine, catalog)
    assert tables_of(engine) == {DEFAULT_PARTITION: 1}
    assert current(engine) == {"a": 1}
    # The day has begun without a partition, so it goes on without.
    assert create_partition(engine, partition_of_day(engine, 0))
    assert present_partitions(engine) == []
    days_pass(engine, 8)
    assert prune(engine) == PruneCounts(results=1)


def test_partition_is_dropped_when_all_its_catalogs_may_be_pruned(engine: Engine) -> None:
    given_a_scheme(engine, max_errors=1)
    loaded = given_an_old_load(engine)
    failed = given_an_old_catalog(engine)
    attempts.fail(engine, claim_of(engine, failed).attempt, "it broke")
    end_long_ago(engine, failed)
    old = partition_of_day(engine, OLD)
    assert tables_of(engine) == {old.name: 2}
    assert count_prunable(engine) == prune(engine) == PruneCounts(results=2)
    assert old not in present_partitions(engine)
    assert the_catalog(engine, loaded)["state"] == "loaded"
    with pytest.raises(NotPossible, match="was purged"):
        catalogs.retry(engine, failed)
    assert current(engine) == {"a": 1, "b": 2}


@pytest.mark.parametrize("reason", ["open", "kept longer", "retried"])
def test_partition_that_a_catalog_needs_stays(engine: Engine, reason: str) -> None:
    given_a_scheme(engine, max_errors=1)
    loaded = given_an_old_load(engine)
    given_a_scheme(engine, an_operation(keep=2 * WEEK * 4), version=2, max_errors=1)
    needed = given_an_old_catalog(engine)
    claimed = claim_of(engine, needed)
    send(engine, claimed, {"c": 3})
    if reason != "open":
        attempts.fail(engine, claimed.attempt, "it broke")
        end_long_ago(engine, needed, 40 if reason == "kept longer" else 60)
    with engine.begin() as connection:
        if reason == "retried":
            connection.execute(
                text("SELECT 1 FROM catlog.catalog WHERE id = :id FOR NO KEY UPDATE"),
                {"id": needed},
            )
        assert prune(engine).results == 2  # those of the loaded catalog, in a batch
    assert partition_of_day(engine, OLD) in present_partitions(engine)
    assert rows_of(engine, loaded) == {}
    if reason != "kept longer":
        assert rows_of(engine, needed) == {"goods": 1}


def test_partition_stays_if_a_catalog_is_retried_during_its_drop(engine: Engine) -> None:
    given_a_scheme(engine, an_operation(for_each=["x", "y"]), max_errors=1)
    failed = given_an_old_catalog(engine)
    done, failing = claim_all(engine, failed)
    deliver(engine, done, {"a": 1})
    attempts.fail(engine, failing.attempt, "it broke")
    end_long_ago(engine, failed)
    retried = []

    @event.listens_for(engine, "before_cursor_execute")
    def retry(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "purged_at IS NULL AND c.id IN" in statement and not retried:
            retried.append(failed)
            catalogs.retry(engine, failed)

    try:
        prune(engine)
    finally:
        event.remove(engine, "before_cursor_execute", retry)
    assert retried
    assert rows_of(engine, failed) == {"goods": 1}
    [again] = claim_all(engine, failed)
    deliver(engine, again, {"b": 2})
    assert publishing.publish(engine, failed)
    assert current(engine) == {"a": 1, "b": 2}


def test_results_wait_for_the_drop_of_their_partition(engine: Engine) -> None:
    """The partition of a day goes a day after its first results have expired."""
    given_a_scheme(engine)
    catalog = given_an_old_load(engine, 30)
    sql(engine, "UPDATE catlog.catalog SET finished_at = finished_at - interval '1 s'")
    assert count_prunable(engine) == prune(engine) == PruneCounts()
    assert rows_of(engine, catalog) == {"goods": 2}


def test_partition_in_use_by_a_reader_is_dropped_later(engine: Engine) -> None:
    given_a_scheme(engine)
    given_an_old_load(engine, 31)
    old = partition_of_day(engine, 31)
    sql(engine, "UPDATE catlog.catalog SET finished_at = finished_at - interval '12 h'")
    with engine.begin() as connection:
        connection.execute(text("SELECT count(*) FROM catlog.catalog_operation_instance_result"))
        assert prune(engine).results == 0
    assert old in present_partitions(engine)
    assert prune(engine).results == 2
    assert old not in present_partitions(engine)


def test_load_uses_the_partition_of_its_day_alone(engine: Engine) -> None:
    given_a_scheme(engine)
    load(engine, {"a": 1, "b": 1})
    tomorrow = partition_of_day(engine, -1)
    with engine.begin() as connection:
        connection.execute(text(f"LOCK TABLE catlog.{tomorrow.name} IN ACCESS EXCLUSIVE MODE"))
        load(engine, {"a": 2, "c": 1})
    assert current(engine) == {"a": 2, "c": 1}


# Catalogs


def given_ended_catalogs(engine: Engine, count: int, **given: Any) -> list[UUID]:
    """Load *count* catalogs, oldest first."""
    return [load(engine, {"a": number}, **given)["id"] for number in range(count)]


def remaining(engine: Engine) -> set[UUID]:
    return {catalog["id"] for catalog in sql(engine, "SELECT id FROM catlog.catalog")}


def test_old_catalogs_are_removed_but_the_newest(engine: Engine) -> None:
    given_a_scheme(engine)
    made = given_ended_catalogs(engine, LATEST_CATALOGS + 3)
    days_pass(engine, 89)
    assert prune(engine).catalogs == 0
    days_pass(engine, 8)
    counted = count_prunable(engine)
    assert counted.catalogs == 3
    assert prune(engine).catalogs == 3
    assert remaining(engine) == set(made[3:])
    assert one(engine, "SELECT count(*) FROM catlog.instance_attempt") == LATEST_CATALOGS
    assert current(engine) == {"a": LATEST_CATALOGS + 2}
    assert len(history(engine)) == LATEST_CATALOGS + 3


def test_summary_of_removed_catalogs_stays(engine: Engine) -> None:
    scheme = given_a_scheme(engine)
    given_ended_catalogs(engine, LATEST_CATALOGS + 3)
    numbers = [c["number"] for c in sql(engine, "SELECT number FROM catlog.catalog ORDER BY 1")]
    created = sql(engine, "SELECT min(created_at) AS first FROM catlog.catalog")[0]["first"]
    sql(
        engine,
        """INSERT INTO catlog.rejected_result (instance_id, attempt, data, errors)
           SELECT id, 1, '{}', '[]' FROM catlog.catalog_scheme_operation_instance""",
    )
    days_pass(engine, 89)
    prune(engine)
    days_pass(engine, 8)
    prune(engine)
    [summary] = sql(engine, "SELECT * FROM catlog.catalog_summary")
    assert (summary["scheme_id"], summary["loaded"], summary["failed"]) == (scheme, 3, 0)
    assert (summary["instances"], summary["attempts"], summary["accepted"]) == (3, 3, 3)
    assert (summary["first_number"], summary["last_number"]) == (numbers[0], numbers[2])
    assert summary["first_created_at"] == created
    assert summary["published"] == {"received": 3, "duplicates": 0, "created": 1, "changed": 2}
    given_ended_catalogs(engine, 2)
    days_pass(engine, 97)
    prune(engine)
    [summary] = sql(engine, "SELECT * FROM catlog.catalog_summary")
    assert (summary["loaded"], summary["published"]["changed"]) == (5, 4)


def test_catalogs_of_each_scheme_and_state_stay(engine: Engine) -> None:
    given_a_scheme(engine, max_errors=1)
    given_a_scheme(engine, an_operation("prices"), name="prices", max_errors=1)
    kept = {load(engine, {"a": 1}, scheme=scheme)["id"] for scheme in ("goods", "prices")}
    kept.add(given_a_failed_catalog(engine))
    days_pass(engine, 1000)
    assert prune(engine).catalogs == 0
    assert remaining(engine) == kept


def test_catalog_whose_results_are_kept_longer_stays(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prune_catalogs, "LATEST_CATALOGS", 0)
    given_a_scheme(engine, an_operation(keep=200 * 86400.0))
    catalog = load(engine, {"a": 1})["id"]
    days_pass(engine, 150)
    assert count_prunable(engine) == prune(engine) == PruneCounts()
    assert rows_of(engine, catalog) == {"goods": 1}
    days_pass(engine, 53)
    assert prune(engine) == PruneCounts(results=1, catalogs=1)


def test_parent_is_removed_with_its_sub_catalogs(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prune_catalogs, "LATEST_CATALOGS", 0)
    given_a_scheme(engine)
    given_a_scheme(engine, name="all", includes=["goods"])
    parent = given_a_catalog(engine, scheme="all")
    starting.start_waiting(engine)
    child = one(engine, "SELECT id FROM catlog.catalog WHERE parent_id IS NOT NULL")
    deliver(engine, claim_of(engine, child), {"a": 1})
    publishing.publish(engine, child)
    assert the_catalog(engine, parent)["state"] == "loaded"
    days_pass(engine, 100)
    with engine.begin() as connection:
        connection.execute(
            text("SELECT 1 FROM catlog.catalog WHERE id = :id FOR NO KEY UPDATE"), {"id": child}
        )
        assert prune(engine).catalogs == 0
    days_pass(engine, 7)
    assert count_prunable(engine).catalogs == 2
    assert prune(engine).catalogs == 2
    assert remaining(engine) == set()
    assert one(engine, "SELECT sum(loaded) FROM catlog.catalog_summary") == 2


def test_late_results_of_a_removed_catalog_are_deleted(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prune_catalogs, "LATEST_CATALOGS", 0)
    given_a_scheme(engine)
    catalog = given_an_old_catalog(engine, 200)
    claimed = claim_of(engine, catalog)
    provider = provider_of(engine, claimed.attempt)
    deliver(engine, claimed, {"a": 1})
    publishing.publish(engine, catalog)
    end_long_ago(engine, catalog, 200)
    prune(engine)
    assert remaining(engine) == set()
    copy_batch(engine, rows_for_copy(claimed.attempt, provider, "goods", [("a", "late")], 1))
    assert tables_of(engine) == {DEFAULT_PARTITION: 1}
    assert prune(engine) == PruneCounts(unfinished=1)


def test_due_time_of_a_removed_catalog_makes_no_second_catalog(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prune_catalogs, "LATEST_CATALOGS", 0)
    given_a_scheme(engine, an_operation(arguments={"date": "{due_at:%Y-%m-%d}"}))
    schedule = given_a_schedule(engine, cron="0 3 * * *", due="now() + interval '1 day'")
    today = one(engine, "SELECT (now() AT TIME ZONE 'UTC')::date")
    first, last = today - dt.timedelta(days=3), today - dt.timedelta(days=1)
    made, _ = backfill(engine, "acme", "goods", first, last)
    for catalog in made[:2]:
        catalogs.cancel(engine, catalog)
    days_pass(engine, 100)
    assert prune(engine).catalogs == 2
    assert backfill(engine, "acme", "goods", first, last) == ([], 3)
    due_at = one(engine, "SELECT min(t) FROM catlog.pruned_due_time, unnest(times) AS t")
    sql(
        engine,
        "UPDATE catlog.schedule SET next_due_at = :at WHERE id = :id",
        at=due_at,
        id=schedule,
    )
    make_due(engine)
    assert one(engine, "SELECT count(*) FROM catlog.catalog WHERE due_at = :at", at=due_at) == 0
    catalogs.cancel(engine, made[2])
    sql(engine, "UPDATE catlog.catalog SET state = 'cancelled', finished_at = now()")
    reset(engine, "acme", "goods", dry_run=False)
    assert len(backfill(engine, "acme", "goods", first, last)[0]) == 3


def test_removal_killed_in_the_middle_removes_all_or_nothing(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prune_catalogs, "LATEST_CATALOGS", 0)
    given_a_scheme(engine)
    given_ended_catalogs(engine, 2)
    days_pass(engine, 100)
    before = everything(engine)

    def killed(connection: Connection, *_: object) -> int:
        connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")
        return 0

    with monkeypatch.context() as patched:
        patched.setattr(prune_catalogs, "delete_results", killed)
        with pytest.raises(exc.DBAPIError):
            prune(engine)
    assert everything(engine) == before
    assert prune(engine).catalogs == 2
    assert one(engine, "SELECT sum(loaded) FROM catlog.catalog_summary") == 2


def test_pruning_beside_loads_keeps_every_load_whole(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prune_catalogs, "LATEST_CATALOGS", 0)
    given_a_scheme(engine)
    shortest = Retention(results=1e-6, catalogs=1e-6)

    def load_often() -> int:
        return sum(load(engine, {"a": number})["published"]["received"] for number in range(20))

    def prune_often() -> int:
        return sum(prune(engine, shortest).catalogs for _ in range(40))

    received, *_ = at_once(load_often, prune_often, prune_often)
    assert received == 20
    prune(engine, shortest)
    assert remaining(engine) == set()
    assert one(engine, "SELECT sum(accepted) FROM catlog.catalog_summary") == 20
    assert current(engine) == {"a": 19}


# The scheduler


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings({**DEFAULTS, "CATLOG_HOME": str(tmp_path), "CATLOG_RESULTS_KEEP": WEEK})


def test_scheduler_prunes_a_little_at_a_time(
    engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prune_results, "MAX_CATALOGS", 1)
    given_a_scheme(engine)
    for number in range(3):
        load(engine, {"a": number})
    days_pass(engine, 8)
    pruner = Pruner(engine, settings)
    monkeypatch.setattr(scheduler_pruning, "MAX_STEP_S", 1e-9)
    left = [remaining_results(engine)]
    for _ in range(8):
        pruner.step()
        left.append(remaining_results(engine))
    assert (left[0], left[-1]) == (3, 0)
    assert all(former - later <= 1 for former, later in pairwise(left))


def remaining_results(engine: Engine) -> int:
    count: int = one(engine, "SELECT count(*) FROM catlog.catalog_operation_instance_result")
    return count


def test_scheduler_begins_a_round_of_pruning_every_ten_minutes(
    engine: Engine, settings: Settings
) -> None:
    given_a_scheme(engine)
    load(engine, {"a": 1})
    pruner = Pruner(engine, settings)
    pruner.step()
    days_pass(engine, 8)
    pruner.step()
    assert remaining_results(engine) == 1
    pruner.next_round_at = 0.0
    pruner.step()
    assert remaining_results(engine) == 0


def test_scheduler_goes_on_after_a_failed_round_of_pruning(
    engine: Engine, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    pruner = Pruner(engine, settings)
    sql(engine, "ALTER TABLE catlog.result_batch RENAME TO away")
    pruner.step()
    assert "pruning failed" in caplog.text
    sql(engine, "ALTER TABLE catlog.away RENAME TO result_batch")
    pruner.next_round_at = 0.0
    pruner.step()
    assert caplog.text.count("pruning failed") == 1
