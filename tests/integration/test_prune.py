"""Pruning by an operation's `keep`, and of the results of unfinished attempts."""

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from catlog_scrapy.exceptions import NotPossible
from catlog_scrapy.store.maintenance.prune import PruneCounts, prune
from catlog_scrapy.store.publishing import publish as publishing
from catlog_scrapy.store.queue import attempts, catalogs
from catlog_scrapy.store.queue.results import store_rejected
from tests.support.factories import (
    an_operation,
    claim_all,
    claim_of,
    current,
    deliver,
    given_a_catalog,
    given_a_scheme,
    history,
    load,
    one,
    send,
    send_lines,
    sql,
    the_catalog,
)

WEEK = 7 * 86400.0


def days_pass(engine: Engine, days: int) -> None:
    """Move the ends of catalogs and the times of versions *days* days back."""
    for table, column in (
        ("catalog", "finished_at"),
        ("record_version", "valid_from"),
        ("record_version", "valid_to"),
    ):
        sql(engine, f"UPDATE catlog.{table} SET {column} = {column} - {days} * interval '1 day'")


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
        an_operation("stocks"),
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
    given_a_scheme(engine, an_operation("goods"), max_errors=1)
    catalog = given_a_failed_catalog(engine)
    days_pass(engine, 1000)
    prune(engine)
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
    counted = prune(engine, dry_run=True)
    assert counted == PruneCounts(results=4, rejected=2, versions=1)
    assert everything(engine) == before
    assert prune(engine) == counted
    assert [state["value"] for state in history(engine)] == [2, 1]


def everything(engine: Engine) -> dict[str, Any]:
    names = ("catalog", "catalog_operation_instance_result", "rejected_result", "record_version")
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
    send_lines(engine, failing.attempt, "goods", [("a", "late")])
    assert prune(engine) == PruneCounts()
    deliver(engine, claim_of(engine, catalog), {"a": 1})
    publishing.publish(engine, catalog)
    send_lines(engine, failing.attempt, "goods", [("b", "later"), ("c", "later")], first=1)
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
