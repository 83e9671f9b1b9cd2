"""Incremental operations resume at the cursor of their last published load."""

from uuid import UUID

import pytest
from sqlalchemy import Engine

from catlog_scrapy.scheduling.cursor import CursorError
from catlog_scrapy.store.publishing import publish as publishing
from catlog_scrapy.store.queue import attempts
from catlog_scrapy.store.queue.claims import Claim
from catlog_scrapy.store.queue.report import Report
from catlog_scrapy.store.queue.resuming import fresh_records, resume_cursor
from tests.support.factories import (
    GONE,
    UNCHANGED,
    an_operation,
    assert_consistent,
    claim_all,
    claim_of,
    current,
    deliver,
    given_a_catalog,
    given_a_scheme,
    history,
    load,
    one,
    publish_again,
    sql,
    state_of,
    the_attempt,
    the_catalog,
)

INCREMENTAL = an_operation(mode="incremental", min_results=1)


def begun(engine: Engine, **given: object) -> tuple[UUID, Claim, str]:
    """Return a claimed catalog of the only operation, and the cursor that it got."""
    catalog = given_a_catalog(engine, **given)  # type: ignore[arg-type]
    claimed = claim_of(engine, catalog)
    return catalog, claimed, resume_cursor(engine, claimed)


def read(engine: Engine, rows: object = (), *, to: str, **given: object) -> str:
    """Load *rows*, end at the cursor *to*, and return the cursor that the load began at."""
    catalog, claimed, cursor = begun(engine, **given)
    outcome = deliver(engine, claimed, rows, to, resumed=bool(cursor))  # type: ignore[arg-type]
    assert outcome == "done"
    assert publishing.publish(engine, catalog)
    assert state_of(engine, catalog) == "loaded"
    return cursor


def test_load_resumes_at_the_cursor_of_the_last_load(engine: Engine) -> None:
    given_a_scheme(engine, INCREMENTAL)
    assert read(engine, {"a": 1, "b": 1}, to="one") == ""
    assert read(engine, {"b": 2}, to="two") == "one"
    assert read(engine, to="two") == "two"
    assert current(engine) == {"a": 1, "b": 2}


def test_attempt_stores_the_range_that_it_read(engine: Engine) -> None:
    given_a_scheme(engine, INCREMENTAL)
    read(engine, {"a": 1}, to="one")
    _, claimed, _ = begun(engine)
    deliver(engine, claimed, {"a": 2}, "two")
    attempt = the_attempt(engine, claimed.attempt)
    assert (attempt["read_from"], attempt["read_to"]) == ("one", "two")


def test_load_without_results_is_done_only_when_it_resumed(engine: Engine) -> None:
    given_a_scheme(engine, INCREMENTAL)
    _, claimed, _ = begun(engine)
    assert deliver(engine, claimed, (), "one", resumed=False) == "incomplete"
    read(engine, {"a": 1}, to="one")
    read(engine, to="one")
    _, claimed, _ = begun(engine)
    assert attempts.complete(engine, claimed.attempt, Report(resumed=True)) == "incomplete"


def test_tolerated_failed_requests_keep_the_cursor(engine: Engine) -> None:
    given_a_scheme(engine, INCREMENTAL | {"tolerate": {"failed_requests": 1}})
    read(engine, {"a": 1}, to="one")
    catalog, claimed, _ = begun(engine)
    report = Report(accepted=0, cursor="two", resumed=True, failed_requests=1)
    assert attempts.complete(engine, claimed.attempt, report) == "done"
    assert publishing.publish(engine, catalog)
    assert begun(engine)[2] == "one"


def test_failed_load_does_not_move_the_cursor(engine: Engine) -> None:
    given_a_scheme(engine, INCREMENTAL)
    read(engine, {"a": 1}, to="one")
    _, claimed, _ = begun(engine)
    attempts.complete(engine, claimed.attempt, Report(reason="shutdown", cursor="two"))
    assert read(engine, {"a": 2}, to="three") == "one"


def test_cursor_moves_only_when_its_data_is_published(engine: Engine) -> None:
    given_a_scheme(engine, INCREMENTAL)
    catalog, claimed, _ = begun(engine)
    deliver(engine, claimed, {"a": 1}, "one")
    assert begun(engine)[2] == ""
    publishing.publish(engine, catalog)
    assert begun(engine)[2] == "one"
    publish_again(engine, catalog)
    assert begun(engine)[2] == "one"


def test_refused_publish_does_not_move_the_cursor(engine: Engine) -> None:
    given_a_scheme(engine, INCREMENTAL)
    catalog, claimed, _ = begun(engine)
    deliver(engine, claimed, {"unheard of": UNCHANGED}, "one")
    publishing.publish(engine, catalog)
    assert state_of(engine, catalog) == "failed"
    assert begun(engine)[2] == ""


@pytest.mark.parametrize("first_published", [0, 1])
def test_first_published_of_two_loads_from_one_cursor_moves_the_cursor(
    engine: Engine, first_published: int
) -> None:
    """The next load reads again what the other load read beyond the cursor."""
    given_a_scheme(engine, INCREMENTAL)
    read(engine, {"a": 0}, to="zero")
    loads = [begun(engine) for _ in range(2)]
    for (_, claimed, cursor), name in zip(loads, ("one", "two"), strict=True):
        assert cursor == "zero"
        deliver(engine, claimed, {"a": name, name: 1}, name)
    for number in (first_published, 1 - first_published):
        assert publishing.publish(engine, loads[number][0])
        assert state_of(engine, loads[number][0]) == "loaded"
    counted = ("one", "two")[first_published]
    assert begun(engine)[2] == counted
    assert current(engine) == {"a": counted, counted: 1}


def test_retried_load_that_read_later_than_a_newer_catalog_counts_as_newer(engine: Engine) -> None:
    given_a_scheme(engine, INCREMENTAL)
    read(engine, {"x": 0}, to="0")
    first, failing, _ = begun(engine)
    attempts.fail(engine, failing.attempt, "the source is away")
    second, slow, _ = begun(engine)
    again = claim_of(engine, first)
    assert resume_cursor(engine, again) == "0"
    deliver(engine, again, {"x": 20}, "20")
    assert publishing.publish(engine, first)
    third, later, cursor = begun(engine)
    assert cursor == "20"
    deliver(engine, slow, {"x": 10}, "10")
    assert publishing.publish(engine, second)
    deliver(engine, later, {"y": 30}, "30")
    assert publishing.publish(engine, third)
    assert begun(engine)[2] == "30"
    assert current(engine) == {"x": 20, "y": 30}


def test_records_read_by_a_partial_load_are_read_again(engine: Engine) -> None:
    given_a_scheme(engine, INCREMENTAL)
    read(engine, {"x": 1}, to="one")
    catalog, claimed, _ = begun(engine)
    read(engine, {"x": 5}, to="", arguments={"id": "x"})
    deliver(engine, claimed, {"x": 6, "y": 6}, "two")
    assert publishing.publish(engine, catalog)
    # The order of the two reads is unknown, so the first published value stays.
    assert current(engine) == {"x": 5, "y": 6}
    assert read(engine, {"x": 6, "y": 6}, to="two") == "one"
    assert current(engine) == {"x": 6, "y": 6}
    assert begun(engine)[2] == "two"


@pytest.mark.parametrize(
    "given", [{"origin": "backfill"}, {"arguments": {"id": "a"}}, {"operation": "goods"}], ids=str
)
def test_backfill_and_partial_load_neither_use_nor_move_the_cursor(
    engine: Engine, given: dict[str, object]
) -> None:
    given_a_scheme(engine, INCREMENTAL)
    read(engine, {"a": 1}, to="one")
    assert read(engine, {"a": 2}, to="two", **given) == ""
    assert begun(engine)[2] == "one"


def test_new_scheme_version_reads_from_the_beginning(engine: Engine) -> None:
    given_a_scheme(engine, INCREMENTAL)
    read(engine, {"a": 1}, to="one")
    given_a_scheme(engine, INCREMENTAL, version=2)
    # A read from the beginning is a snapshot: records that the source deleted are removed.
    assert read(engine, {"a": 1, "b": 1}, to="two") == ""
    assert read(engine, to="two") == "two"
    given_a_scheme(engine, INCREMENTAL, version=3)
    assert read(engine, {"a": 1}, to="two") == ""
    assert current(engine) == {"a": 1}


def test_load_without_a_final_cursor_is_no_snapshot(engine: Engine) -> None:
    given_a_scheme(engine, INCREMENTAL)
    for rows in ({"a": 1}, {"b": 1}):
        catalog, claimed, _ = begun(engine)
        assert deliver(engine, claimed, rows) == "done"
        assert publishing.publish(engine, catalog)
    assert current(engine) == {"a": 1, "b": 1}


def test_load_of_a_former_version_moves_no_cursor(engine: Engine) -> None:
    given_a_scheme(engine, INCREMENTAL)
    read(engine, {"a": 1}, to="one")
    former, claimed, _ = begun(engine)
    waiting = given_a_catalog(engine)
    given_a_scheme(engine, INCREMENTAL, version=2)
    read(engine, {"a": 2}, to="two")
    deliver(engine, claimed, {"a": "former"}, "beyond")
    late = claim_of(engine, waiting)
    assert resume_cursor(engine, late) == ""
    deliver(engine, late, {"a": "former"}, "beyond")
    for catalog in (former, waiting):
        assert publishing.publish(engine, catalog)
    assert current(engine) == {"a": 2}
    assert begun(engine)[2] == "two"


def test_each_part_has_its_own_cursor(engine: Engine) -> None:
    given_a_scheme(engine, INCREMENTAL | {"for_each": ["x", "y"]})
    catalog = given_a_catalog(engine)
    for claimed in claim_all(engine, catalog):
        assert resume_cursor(engine, claimed) == ""
        deliver(engine, claimed, {f"{claimed.part} 1": 1}, f"cursor of {claimed.part}")
    publishing.publish(engine, catalog)
    claims = claim_all(engine, given_a_catalog(engine))
    assert [resume_cursor(engine, claimed) for claimed in claims] == ["cursor of x", "cursor of y"]


def test_overlap_moves_the_start_before_the_cursor(engine: Engine) -> None:
    given_a_scheme(engine, INCREMENTAL | {"overlap": 90.0})
    read(engine, {"a": 1}, to="2026-03-29T01:00:30+01:00")
    assert begun(engine)[2] == "2026-03-29T00:59:00+01:00"


def test_overlap_declared_later_needs_an_instant_as_cursor(engine: Engine) -> None:
    given_a_scheme(engine, INCREMENTAL)
    read(engine, {"a": 1}, to="page 7")
    sql(engine, "UPDATE catlog.catalog_scheme_operation SET overlap = 60")
    with pytest.raises(CursorError, match="'page 7' is not an ISO 8601 datetime"):
        begun(engine)


def test_records_that_the_source_reports_deleted_are_removed(engine: Engine) -> None:
    given_a_scheme(engine, INCREMENTAL)
    read(engine, {"a": 1, "b": 1, "c": 1}, to="one")
    catalog, claimed, _ = begun(engine)
    # Deletions of most records and of an unknown record; one record comes back in the same load.
    rows = [("a", GONE), ("b", GONE), ("never", GONE), ("c", GONE), ("c", 2)]
    deliver(engine, claimed, rows, "two")
    publishing.publish(engine, catalog)
    published = the_catalog(engine, catalog)["published"]
    assert (published["removed"], published["changed"], published["received"]) == (2, 1, 5)
    assert current(engine) == {"c": 2}
    assert read(engine, [("a", 3), ("b", GONE)], to="three") == "two"
    assert current(engine) == {"a": 3, "c": 2}
    states = history(engine)
    assert_consistent(states)
    assert [state["change"] for state in states if state["key"] == "b"] == ["removed"]


def test_older_load_neither_removes_nor_restores_records(engine: Engine) -> None:
    given_a_scheme(engine, INCREMENTAL)
    older, first, _ = begun(engine)
    read(engine, {"a": 1, "b": 1}, to="one")
    read(engine, [("b", GONE)], to="two")
    deliver(engine, first, [("a", GONE), ("b", "old")], "one")
    publishing.publish(engine, older)
    assert current(engine) == {"a": 1}


def test_deletion_of_an_unknown_record_creates_no_record(engine: Engine) -> None:
    given_a_scheme(engine, INCREMENTAL)
    read(engine, {"a": 1}, to="one")
    older = given_a_catalog(engine, arguments={"id": "x"})
    deliver(engine, claim_of(engine, older), {"x": "created"})
    read(engine, [("x", GONE)], to="two")
    publishing.publish(engine, older)
    assert current(engine) == {"a": 1}
    assert history(engine)[-1]["key"] == "a"
    read(engine, {"x": "again"}, to="three")
    assert current(engine) == {"a": 1, "x": "again"}


def test_share_of_reported_deletions_can_be_limited(engine: Engine) -> None:
    given_a_scheme(engine, INCREMENTAL | {"tolerate": {"removed": 1}})
    read(engine, {"a": 1, "b": 1}, to="one")
    catalog, claimed, _ = begun(engine)
    deliver(engine, claimed, [("a", GONE), ("b", GONE)], "two")
    publishing.publish(engine, catalog)
    assert state_of(engine, catalog) == "failed"
    assert begun(engine)[2] == "one"


def test_recently_read_record_is_fresh(engine: Engine) -> None:
    refresh = {"every": 3600.0, "by": "value"}
    given_a_scheme(engine, an_operation(refresh=refresh))
    claimed = claim_of(engine, given_a_catalog(engine))
    assert fresh_records(engine, claimed) == {}
    load(engine, {"a": "link of a", "b": "link of b", "c": "link of c"})
    fresh = {"link of a": ["a"], "link of b": ["b"], "link of c": ["c"]}
    assert fresh_records(engine, claimed) == fresh
    sql(engine, "UPDATE records.goods SET _read_at = _read_at - interval '2 h' WHERE id <> 'c'")
    assert fresh_records(engine, claimed) == {"link of c": ["c"]}
    # Read again with the same data; listed as unchanged; removed.
    load(engine, {"a": "link of a", "b": UNCHANGED})
    assert fresh_records(engine, claimed) == {"link of a": ["a"]}
    assert current(engine) == {"a": "link of a", "b": "link of b"}
    assert one(engine, "SELECT count(*) FROM records.goods_versions") == 1


def test_records_that_share_a_refresh_value_are_never_fresh(engine: Engine) -> None:
    given_a_scheme(engine, an_operation(refresh={"every": 3600.0, "by": "value"}))
    load(engine, {"a": "shared", "b": "shared", "c": "own"})
    claimed = claim_of(engine, given_a_catalog(engine))
    assert fresh_records(engine, claimed) == {"own": ["c"]}


def test_record_read_by_another_scheme_version_is_not_fresh(engine: Engine) -> None:
    operation = an_operation(refresh={"every": 3600.0, "by": "value"})
    given_a_scheme(engine, operation)
    load(engine, {"a": "link"})
    given_a_scheme(engine, operation, version=2)
    claimed = claim_of(engine, given_a_catalog(engine))
    assert fresh_records(engine, claimed) == {}


def test_without_refresh_unchanged_records_are_not_written(engine: Engine) -> None:
    given_a_scheme(engine)
    load(engine, {"a": 1})
    was = one(engine, "SELECT xmin::text FROM records.goods")
    load(engine, {"a": 1})
    assert one(engine, "SELECT xmin::text FROM records.goods") == was
