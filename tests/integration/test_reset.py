"""Reset: deletes exactly the data of the given scope, and only if no catalog is open."""

from typing import Any

import pytest
from sqlalchemy import Engine, text

from catlog_scrapy.exceptions import NotFound, NotPossible
from catlog_scrapy.store.maintenance.reset import ResetCounts, reset
from catlog_scrapy.store.publishing.publish import PUBLISH_LOCK, publish
from catlog_scrapy.store.queue import attempts, catalogs, starting
from catlog_scrapy.store.queue.results import store_rejected
from catlog_scrapy.store.queue.resuming import resume_cursor
from tests.support.factories import (
    an_operation,
    claim_of,
    current,
    deliver,
    given_a_catalog,
    given_a_scheme,
    given_a_waiting_catalog,
    history,
    load,
    one,
    sql,
    the_catalog,
)


def rows_of(engine: Engine, table: str) -> int:
    count: int = one(engine, f"SELECT count(*) FROM catlog.{table}")
    return count


def given_two_operations(engine: Engine) -> None:
    given_a_scheme(engine, an_operation("goods"), an_operation("makers"))


def load_both(engine: Engine, **rows: Any) -> dict[str, Any]:
    return load(engine, by_operation=rows)


def test_a_load_after_a_reset_starts_from_nothing(engine: Engine) -> None:
    given_a_scheme(engine)
    load(engine, {"a": 1, "b": 1, "c": 1}, as_of=1)
    load(engine, {"a": 2, "b": 1}, as_of=2)
    assert reset(engine, "acme", "goods", dry_run=False) == ResetCounts(
        ("goods",), 3, 2, 5, 0, 1, 2
    )
    assert history(engine) == []
    # Older than what was forgotten, and fewer than half: no mark and no record speaks against it.
    assert load(engine, {"a": 3}, as_of=1.5)["published"]["created"] == 1
    assert current(engine) == {"a": 3}


def test_dry_run_of_reset_counts_and_changes_nothing(engine: Engine) -> None:
    given_a_scheme(engine)
    load(engine, {"a": 1, "b": 1}, as_of=1)
    catalog = load(engine, {"a": 2, "b": 1}, as_of=2)
    before = history(engine)
    would = reset(engine, "acme", "goods", dry_run=True)
    assert would == ResetCounts(("goods",), 2, 1, 4, 0, 1, 2)
    assert history(engine) == before
    assert the_catalog(engine, catalog["id"]) == catalog
    assert reset(engine, "acme", "goods", dry_run=False) == would


def test_reset_of_one_operation_leaves_its_neighbours(engine: Engine) -> None:
    given_two_operations(engine)
    load_both(engine, goods={"a": 1}, makers={"m": 1})
    assert reset(engine, "acme", "goods", "makers", dry_run=False) == ResetCounts(
        ("makers",), 1, 0, 1, 0, 1, 1
    )
    assert current(engine, "makers") == {}
    assert current(engine, "goods") == {"a": 1}
    assert sql(
        engine, "SELECT operation_name, high_water_mark IS NULL AS none FROM catlog.scope"
    ) == [{"operation_name": "goods", "none": False}]


def test_reset_leaves_other_schemes_and_providers(engine: Engine) -> None:
    given_a_scheme(engine)
    given_a_scheme(engine, an_operation("makers"), name="makers")
    given_a_scheme(engine, provider="other")
    load(engine, {"a": 1})
    load(engine, {"m": 1}, scheme="makers")
    load(engine, {"a": 2}, provider="other")
    reset(engine, "acme", "goods", dry_run=False)
    assert current(engine) == {}
    assert current(engine, "makers") == {"m": 1}
    assert current(engine, "goods", "other") == {"a": 2}


def test_reset_deletes_records_and_high_water_marks_of_former_versions(engine: Engine) -> None:
    """A record belongs to the operation that writes its kind now, not to its former operation."""
    given_a_scheme(engine, an_operation("old", kinds=["goods"]))
    load(engine, {"a": 1, "b": 1}, as_of=5)
    given_a_scheme(engine, an_operation("new", kinds=["goods"]), version=2)
    assert reset(engine, "acme", "goods", "new", dry_run=False).records == 2
    assert rows_of(engine, "scope") == 0
    load(engine, {"a": 2}, as_of=1)
    assert current(engine) == {"a": 2}
    # The former operation has nothing any more.
    assert reset(engine, "acme", "goods", "old", dry_run=False).records == 0
    assert current(engine) == {"a": 2}


def test_incremental_operation_reads_from_the_beginning_after_a_reset(engine: Engine) -> None:
    given_a_scheme(engine, an_operation(mode="incremental"))
    catalog = given_a_catalog(engine)
    claimed = claim_of(engine, catalog)
    assert resume_cursor(engine, claimed) == ""
    deliver(engine, claimed, {"a": 1}, "as far as here")
    assert publish(engine, catalog)
    assert rows_of(engine, "cursor") == 1
    reset(engine, "acme", "goods", dry_run=False)
    assert rows_of(engine, "cursor") == 0
    assert resume_cursor(engine, claim_of(engine, given_a_catalog(engine))) == ""


def test_reset_keeps_attempts_of_catalogs_and_their_retry_is_refused(engine: Engine) -> None:
    given_a_scheme(engine, an_operation("goods"), an_operation("makers"))
    failed = given_a_catalog(engine)
    claimed = claim_of(engine, failed)
    store_rejected(engine, claimed.attempt, [("http://x", "{}", ["why"])])
    attempts.fail(engine, claimed.attempt, "no")
    starting.fail_without_retry(engine, failed)
    assert reset(engine, "acme", "goods", dry_run=False).rejected == 1
    assert rows_of(engine, "rejected_result") == 0
    assert rows_of(engine, "instance_attempt") == 1
    with pytest.raises(NotPossible, match="was purged"):
        catalogs.retry(engine, failed)


@pytest.mark.parametrize("started", [False, True])
def test_reset_with_an_open_catalog_is_refused(engine: Engine, started: bool) -> None:
    given_a_scheme(engine)
    load(engine, {"a": 1})
    catalog = given_a_waiting_catalog(engine)
    if started:
        starting.start(engine, catalog)
    with pytest.raises(NotPossible, match=f"catalog {catalog} .* scrapy cancel"):
        reset(engine, "acme", "goods", dry_run=False)
    assert current(engine) == {"a": 1}
    catalogs.cancel(engine, catalog)
    reset(engine, "acme", "goods", dry_run=False)
    assert current(engine) == {}


def test_reset_during_a_publish_is_refused(engine: Engine) -> None:
    given_a_scheme(engine)
    load(engine, {"a": 1})
    with engine.begin() as connection:
        connection.execute(
            text("SELECT pg_advisory_xact_lock(:key, hashtext(id::text)) FROM catlog.provider"),
            {"key": PUBLISH_LOCK},
        )
        with pytest.raises(NotPossible, match="is being published; try again"):
            reset(engine, "acme", "goods", dry_run=False)
    reset(engine, "acme", "goods", dry_run=False)


def test_reset_of_an_unknown_scheme_names_it(engine: Engine) -> None:
    given_a_scheme(engine)
    given_a_scheme(engine, name="all", includes=["goods"])
    with pytest.raises(NotFound, match="no scheme acme/nothing"):
        reset(engine, "acme", "nothing", dry_run=False)
    with pytest.raises(NotFound, match="no operation 'more'; it has goods"):
        reset(engine, "acme", "goods", "more", dry_run=False)
    with pytest.raises(NotPossible, match="reset what it includes: goods"):
        reset(engine, "acme", "all", dry_run=False)
