"""Data is as old as its reading: retries, overlapping loads, moving parts and clocks that jump."""

import datetime as dt
import logging
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine

from catlog_scrapy.store.publishing import publish as publishing
from catlog_scrapy.store.queue import attempts, catalogs, starting
from catlog_scrapy.store.queue.resuming import resume_cursor
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
    sql,
    state_of,
    the_catalog,
)

TOLERANT = {"removed": 1.0}
PARTS = ["x", "y"]


def given_goods(engine: Engine, **columns: Any) -> None:
    given_a_scheme(engine, an_operation(tolerate=TOLERANT, **columns))


def given_incremental_parts(engine: Engine) -> None:
    given_goods(engine, mode="incremental", for_each=PARTS)


def given_a_clock_that_was_ahead(engine: Engine) -> dt.datetime:
    """Set the time of the last reading to a day from now, and return it."""
    sql(
        engine,
        """SELECT setval('catlog.reading_clock',
               CAST(extract(epoch FROM now() + interval '1 day') * 1000000 AS bigint))""",
    )
    ahead: dt.datetime = one(engine, "SELECT catlog.reading_time()")
    return ahead


def test_retried_load_counts_as_read_at_its_retry(engine: Engine) -> None:
    given_goods(engine)
    catalog = given_a_catalog(engine)
    for _ in range(5):
        attempts.fail(engine, claim_of(engine, catalog).attempt, "the source is away")
    load(engine, {"k": 2}, operation="goods")
    catalogs.retry(engine, catalog)
    publish_waiting(engine, catalog, {"k": 3, "l": 3})
    assert current(engine) == {"k": 3, "l": 3}


def publish_waiting(engine: Engine, catalog: UUID, rows: dict[str, int]) -> None:
    starting.start(engine, catalog)
    assert deliver(engine, claim_of(engine, catalog), rows) == "done"
    assert publishing.publish(engine, catalog)


def test_overlapping_load_that_read_earlier_changes_nothing(engine: Engine) -> None:
    given_goods(engine)
    slow, fast = given_a_catalog(engine), given_a_catalog(engine)
    reads_first = claim_of(engine, slow)
    reads_second = claim_of(engine, fast)
    deliver(engine, reads_second, {"k": 33})
    assert publishing.publish(engine, fast)
    deliver(engine, reads_first, {"k": 11, "l": 11})
    assert publishing.publish(engine, slow)
    assert the_catalog(engine, slow)["published"]["stale"] == 2
    assert current(engine) == {"k": 33}


def test_catalog_that_was_read_earlier_is_published_first(engine: Engine) -> None:
    """Published after the other it would be stale and leave no history."""
    given_goods(engine)
    retried, plain = given_a_catalog(engine), given_a_catalog(engine)
    attempts.fail(engine, claim_of(engine, retried).attempt, "the source is away")
    deliver(engine, claim_of(engine, plain), {"k": 1})
    deliver(engine, claim_of(engine, retried), {"k": 2})
    assert publishing.publish_next(engine) == plain
    assert publishing.publish_next(engine) == retried
    assert [state["value"] for state in history(engine)] == [1, 2]


def test_absence_counts_as_of_the_earliest_reading(engine: Engine) -> None:
    given_goods(engine, for_each=PARTS)
    load(engine, parts={"x": {"a": 1}, "y": {"b": 1}})
    catalog = given_a_catalog(engine)
    of_x, failing = claim_all(engine, catalog)
    attempts.fail(engine, failing.attempt, "the source is away")
    load(engine, {"new": 1}, operation="goods", arguments={"part": "x"})
    deliver(engine, of_x, {"a": 1})
    deliver(engine, claim_of(engine, catalog), {"b": 1})
    assert publishing.publish(engine, catalog)
    assert current(engine) == {"a": 1, "b": 1, "new": 1}
    load(engine, parts={"x": {"a": 1}, "y": {"b": 1}})
    assert current(engine) == {"a": 1, "b": 1}


def test_unwritten_record_counts_as_read_by_the_latest_reading_of_its_part(
    engine: Engine,
) -> None:
    """The retried part finds its record unchanged, so it writes nothing but a mark."""
    given_goods(engine, for_each=PARTS)
    load(engine, parts={"x": {"a": 1}, "y": {"b": 2}})
    full = given_a_catalog(engine)
    of_x, failing = claim_all(engine, full)
    attempts.fail(engine, failing.attempt, "the source is away")
    partial = given_a_catalog(engine, arguments={"part": "y"})
    reads_before = claim_of(engine, partial)
    deliver(engine, of_x, {"a": 1})
    deliver(engine, claim_of(engine, full), {"b": 2})
    assert publishing.publish(engine, full)
    deliver(engine, reads_before, {"b": 1, "c": 1})
    assert publishing.publish(engine, partial)
    assert current(engine) == {"a": 1, "b": 2, "c": 1}
    assert sql(engine, "SELECT part FROM catlog.part_mark") == [{"part": "y"}]


def test_stale_part_of_a_load_is_left_out(engine: Engine) -> None:
    given_goods(engine, for_each=PARTS)
    older = given_a_catalog(engine)
    of_x, failing = claim_all(engine, older)
    attempts.fail(engine, failing.attempt, "the source is away")
    load(engine, parts={"x": {"a": 2}, "y": {"b": 2, "c": 2}})
    deliver(engine, of_x, {"a": 1, "z": 1})
    deliver(engine, claim_of(engine, older), {"b": 3})
    assert publishing.publish(engine, older)
    assert current(engine) == {"a": 2, "b": 3, "c": 2}
    assert the_catalog(engine, older)["published"]["stale"] == 2


def test_loads_after_a_clock_that_was_ahead_are_newer(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    given_goods(engine)
    load(engine, {"k": 1, "l": 1})
    with caplog.at_level(logging.WARNING):
        ahead = given_a_clock_that_was_ahead(engine)
        load(engine, {"k": 2, "l": 2})
    assert "stands behind" in caplog.text
    slow, fast = given_a_catalog(engine), given_a_catalog(engine)
    reads_first, reads_second = claim_of(engine, slow), claim_of(engine, fast)
    deliver(engine, reads_second, {"k": 4})
    assert publishing.publish(engine, fast)
    deliver(engine, reads_first, {"k": 3})
    assert publishing.publish(engine, slow)
    assert current(engine) == {"k": 4}
    load(engine, {"k": 5, "m": 5}, operation="goods")
    assert current(engine) == {"k": 5, "m": 5}
    assert the_catalog(engine, fast)["as_of"] < ahead + dt.timedelta(seconds=1)


def test_loads_behind_a_mark_in_the_future_are_newer(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """A replica that does not copy sequences has the tables, and not their clock."""
    given_goods(engine, for_each=PARTS)
    load(engine, parts={"x": {"k": 1}, "y": {"l": 1}})
    for table, column in (("catlog.scope", "high_water_mark"), ("records.goods", "_as_of")):
        sql(engine, f"UPDATE {table} SET {column} = {column} + interval '1 day'")
    with caplog.at_level(logging.WARNING):
        load(engine, parts={"x": {"k": 2}, "y": {"l": 2}})
    assert "stands behind the newest high-water mark" in caplog.text
    assert current(engine) == {"k": 2, "l": 2}
    load(engine, {"k": 3}, operation="goods", arguments={"part": "x"})
    load(engine, parts={"x": [("k", UNCHANGED)], "y": {"m": 2}})
    assert current(engine) == {"k": 3, "m": 2}


def test_intervals_never_invert_when_the_clock_steps_back(engine: Engine) -> None:
    given_goods(engine)
    load(engine, {"k": 1})
    for table, column in (
        ("catlog.publication", "published_at"),
        ("records.goods", "_updated_at"),
    ):
        sql(engine, f"UPDATE {table} SET {column} = {column} + interval '1 hour'")
    load(engine, {"k": 2})
    load(engine, {"l": 3})
    load(engine, {"k": 2})
    states = history(engine)
    assert_consistent(states)
    of_k = [(state["value"], state["change"]) for state in states if state["key"] == "k"]
    assert of_k == [(1, "changed"), (2, "removed"), (2, None)]


def test_reading_time_never_goes_back(engine: Engine) -> None:
    times = [one(engine, "SELECT catlog.reading_time()") for _ in range(3)]
    given_a_clock_that_was_ahead(engine)
    times += [one(engine, "SELECT catlog.reading_time()") for _ in range(3)]
    assert times == sorted(set(times))
    assert times[-1] - times[-2] == dt.timedelta(microseconds=1)


def test_data_of_one_part_beats_removal_by_another(engine: Engine) -> None:
    given_incremental_parts(engine)
    load(engine, parts={"x": [("other", 1)], "y": {"k": 1}})
    load(engine, parts={"x": {"k": 2}, "y": [("k", GONE)]})
    assert current(engine) == {"other": 1, "k": 2}


def test_part_removes_only_records_that_it_wrote_last(engine: Engine) -> None:
    given_incremental_parts(engine)
    load(engine, parts={"x": [("other", 1)], "y": {"k": 1}})
    load(engine, parts={"x": {"k": 1}, "y": [("more", 1)]})
    load(engine, parts={"x": [("other", 2)], "y": [("k", GONE)]})
    assert current(engine) == {"other": 2, "more": 1, "k": 1}
    load(engine, parts={"x": [("k", GONE)], "y": [("more", 1)]})
    assert current(engine) == {"other": 2, "more": 1}


@pytest.mark.parametrize("mode", ["snapshot", "incremental"])
@pytest.mark.parametrize("owner", PARTS)
@pytest.mark.parametrize("before", [{}, {"b": 1}])
def test_removal_by_the_part_that_wrote_the_record_counts_among_several(
    engine: Engine, owner: str, mode: str, before: dict[str, int]
) -> None:
    given_goods(engine, mode=mode, for_each=PARTS)
    load(engine, parts={owner: {"a": 1, **before}})
    load(engine, parts={part: {"a": GONE} for part in PARTS})
    assert "a" not in current(engine)
    assert [state["change"] for state in history(engine) if state["key"] == "a"][-1] == "removed"


def test_removals_by_several_other_parts_remove_nothing(engine: Engine) -> None:
    given_goods(engine, mode="incremental", for_each=["x", "y", "z"])
    load(engine, parts={"x": {"a": 1}})
    load(engine, parts={"y": {"a": GONE}, "z": {"a": GONE}})
    assert current(engine) == {"a": 1}


def test_seen_record_beats_removal_by_another_part(engine: Engine) -> None:
    given_incremental_parts(engine)
    load(engine, parts={"x": [("other", 1)], "y": {"k": 1}})
    load(engine, parts={"x": [("k", UNCHANGED)], "y": [("k", GONE)]})
    assert current(engine) == {"other": 1, "k": 1}


def test_full_load_removes_a_record_that_only_a_foreign_part_reports_removed(
    engine: Engine,
) -> None:
    given_goods(engine, for_each=PARTS)
    load(engine, parts={"x": {"k": 1}, "y": {"l": 1}})
    load(engine, parts={"x": [("m", 1)], "y": [("k", GONE), ("l", 1)]})
    assert current(engine) == {"l": 1, "m": 1}


def test_records_of_a_part_that_left_for_each_are_removed(engine: Engine) -> None:
    given_a_scheme(
        engine,
        an_operation("goods", mode="incremental", for_each="shops", tolerate=TOLERANT),
        an_operation("shops", tolerate=TOLERANT),
    )
    load(engine, {"north": 1, "south": 1}, operation="shops")
    both = {"north": {"a": 1}, "south": {"b": 1}}
    shops = {"shops": {"north": 1, "south": 1}}
    load(engine, parts=both, by_operation=shops)
    load(engine, {"north": 1}, operation="shops")
    sql(engine, "UPDATE records.shops SET _removed_at = now() WHERE id = 'south'")
    load(engine, {"c": 1}, operation="goods", arguments={"part": "north"})
    assert current(engine) == {"a": 1, "b": 1, "c": 1}
    load(engine, parts={"north": {"d": 1}}, by_operation={"shops": {"north": 1}})
    assert current(engine) == {"a": 1, "c": 1, "d": 1}


def test_records_of_a_word_that_left_for_each_are_removed(engine: Engine) -> None:
    given_incremental_parts(engine)
    load(engine, parts={"x": {"a": 1}, "y": {"b": 1}})
    given_a_scheme(
        engine,
        an_operation(tolerate=TOLERANT, mode="incremental", for_each=["x"]),
        version=2,
    )
    load(engine, parts={"x": {"c": 1}})
    assert current(engine) == {"a": 1, "c": 1}


def test_part_that_returns_to_for_each_is_read_from_the_beginning(engine: Engine) -> None:
    given_incremental_shops(engine, {"north", "south"})
    read_shops(engine, {"north": {"a": 1}, "south": {"b": 1}}, cursor="one")
    set_shops(engine, {"north"})
    assert read_shops(engine, {"north": {"a": 1}}, cursor="two") == {"north": "one"}
    assert current(engine) == {"a": 1}
    set_shops(engine, {"north", "south"})
    begun = read_shops(engine, {"north": (), "south": {"b": 1}}, cursor="three")
    assert begun == {"north": "two", "south": ""}
    assert current(engine) == {"a": 1, "b": 1}


def test_older_load_removes_no_records_of_parts_that_a_newer_load_has(engine: Engine) -> None:
    given_incremental_shops(engine, {"north", "south"})
    read_shops(engine, {"north": {"a": 1}, "south": {"b": 1}}, cursor="one")
    set_shops(engine, {"north"})
    older = given_a_catalog(engine)
    [of_north] = claim_all(engine, older)
    set_shops(engine, {"north", "south"})
    read_shops(engine, {"north": (), "south": {"c": 1}}, cursor="two")
    deliver(engine, of_north, {"a": 2})
    assert publishing.publish(engine, older)
    assert current(engine) == {"a": 2, "b": 1, "c": 1}


def given_incremental_shops(engine: Engine, shops: set[str]) -> None:
    given_a_scheme(engine, an_operation("shops", tolerate=TOLERANT), name="shops")
    given_goods(engine, mode="incremental", for_each="shops")
    set_shops(engine, shops)


def set_shops(engine: Engine, shops: set[str]) -> None:
    load(engine, dict.fromkeys(shops, 1), scheme="shops")


def read_shops(engine: Engine, parts: dict[str, Any], *, cursor: str) -> dict[str, str]:
    """Load *parts* up to *cursor*, and return the cursors that they began at."""
    catalog = given_a_catalog(engine)
    begun = {}
    for claimed in claim_all(engine, catalog):
        begun[claimed.part] = resume_cursor(engine, claimed)
        resumed = bool(begun[claimed.part])
        assert deliver(engine, claimed, parts[claimed.part], cursor, resumed=resumed) == "done"
    assert publishing.publish(engine, catalog)
    assert state_of(engine, catalog) == "loaded"
    return begun


@pytest.mark.parametrize("removal", [[("k", GONE), ("l", 1)], [("l", 1)]])
def test_unchanged_of_a_removed_record_restores_its_last_content(
    engine: Engine, removal: list[tuple[str, Any]]
) -> None:
    """A listing lost the record for a while; the spider's own notes know its content."""
    given_goods(engine)
    load(engine, {"k": 1, "l": 1})
    load(engine, removal)
    assert current(engine) == {"l": 1}
    restored = load(engine, {"k": UNCHANGED, "l": 1})
    assert restored["published"]["restored"] == 1
    assert current(engine) == {"k": 1, "l": 1}


def test_unchanged_counts_against_an_older_reading_whose_removal_is_published_first(
    engine: Engine,
) -> None:
    given_goods(engine)
    load(engine, {"k": 1, "l": 1})
    older, newer = given_a_catalog(engine), given_a_catalog(engine)
    reads_first, reads_second = claim_of(engine, older), claim_of(engine, newer)
    deliver(engine, reads_first, {"l": 1})
    assert publishing.publish(engine, older)
    deliver(engine, reads_second, {"k": UNCHANGED, "l": 1})
    assert publishing.publish(engine, newer)
    assert state_of(engine, newer) == "loaded"
    assert current(engine) == {"k": 1, "l": 1}


def test_unchanged_of_a_key_that_was_only_removed_is_refused(engine: Engine) -> None:
    given_goods(engine, mode="incremental")
    load(engine, [("k", GONE), ("l", 1)])
    catalog = given_a_catalog(engine)
    deliver(engine, claim_of(engine, catalog), {"k": UNCHANGED})
    assert publishing.publish(engine, catalog)
    assert state_of(engine, catalog) == "failed"
    assert current(engine) == {"l": 1}
    load(engine, {"k": 2})
    assert current(engine) == {"k": 2, "l": 1}
