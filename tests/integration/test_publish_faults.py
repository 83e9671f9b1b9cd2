"""Faults of a publish: killed, failing and concurrent publishes show no partial data."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import pytest
from sqlalchemy import Engine, exc, text

from catlog_scrapy.db.engine import make_engine
from catlog_scrapy.store.publishing import publish as publishing
from catlog_scrapy.store.queue import attempts
from tests.support.factories import (
    an_operation,
    at_once,
    claim_of,
    current,
    given_a_catalog,
    given_a_loaded_catalog,
    given_a_scheme,
    given_fields,
    given_record_tables,
    history,
    load,
    load_records,
    one,
    send,
    sql,
    state_of,
    the_catalog,
)
from tests.support.waiting import THIS_DATABASE, WAITING_BACKENDS

MANY = 50_000
PUBLISHES = """
    SELECT pid FROM pg_stat_activity
    WHERE query LIKE '%INSERT INTO records.%' AND state = 'active' AND pid <> pg_backend_pid()
      AND datname = current_database()"""


def given_a_large_catalog(engine: Engine, value: int = 1) -> UUID:
    """Return a catalog of MANY rows that waits for publishing."""
    catalog = given_a_catalog(engine)
    claimed = claim_of(engine, catalog)
    send(engine, claimed, {str(number): value for number in range(1, MANY + 1)})
    report = attempts.Report(accepted=MANY)
    assert attempts.complete(engine, claimed.attempt, report) == "done"
    return catalog


def values(engine: Engine) -> dict[int, int]:
    """Count current records by value, in one statement."""
    found = sql(
        engine,
        """SELECT value::int AS value, count(*) AS records FROM records.goods
           WHERE _removed_at IS NULL GROUP BY 1""",
    )
    return {each["value"]: each["records"] for each in found}


@contextmanager
def stopped_at_its_last_step(engine: Engine) -> Iterator[None]:
    """Lock the catalog, so that a publisher stops after its writes and before its commit."""
    with engine.connect() as connection:
        connection.execute(text("SELECT 1 FROM catlog.catalog FOR NO KEY UPDATE"))
        yield
        connection.rollback()


def wait_for(engine: Engine, query: str) -> int:
    """Return the first value of *query* as soon as it has a row."""
    while not (found := sql(engine, query)):
        time.sleep(0.01)
    return next(iter(found[0].values()))


def waits_for_the_catalog(engine: Engine) -> int:
    """Return the backend of the publisher that waits for the catalog's lock."""
    return wait_for(engine, WAITING_BACKENDS)


def test_a_publish_whose_connection_is_cut_is_repeated_exactly(engine: Engine) -> None:
    given_a_scheme(engine)
    catalog = given_a_large_catalog(engine)

    def cut() -> None:
        pid = wait_for(engine, PUBLISHES)
        sql(engine, "SELECT pg_terminate_backend(:pid)", pid=pid)

    def publish() -> None:
        with pytest.raises(exc.OperationalError):
            publishing.publish_next(engine)

    at_once(publish, cut)
    assert values(engine) == {}
    waiting = the_catalog(engine, catalog)
    assert (waiting["state"], waiting["publish_failures"]) == ("publishing", 1)
    assert "tried again" in waiting["error"]
    assert publishing.publish_next(engine) is None
    time_passes(engine)
    assert publishing.publish_next(engine) == catalog
    assert values(engine) == {1: MANY}
    assert the_catalog(engine, catalog)["published"]["created"] == MANY
    assert the_catalog(engine, catalog)["error"] is None


def time_passes(engine: Engine) -> None:
    sql(engine, "UPDATE catlog.catalog SET publish_at = now() WHERE state = 'publishing'")


def publish_in_a_process(url: str) -> None:
    publishing.publish_next(make_engine(url))


def test_killed_publisher_leaves_nothing_and_blocks_nobody(
    engine: Engine, database_url: str
) -> None:
    given_a_scheme(engine)
    load(engine, {"1": 0})
    catalog = given_a_large_catalog(engine)
    process = multiprocessing.get_context("spawn").Process(
        target=publish_in_a_process, args=(database_url,)
    )
    with stopped_at_its_last_step(engine):
        process.start()
        waits_for_the_catalog(engine)
        assert process.pid
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert process.exitcode == -signal.SIGKILL
    # PostgreSQL notices the dead client at its next write to the connection.
    locked = f"SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND database = {THIS_DATABASE}"
    wait_for(engine, f"SELECT 1 WHERE NOT EXISTS ({locked})")
    assert values(engine) == {0: 1}
    assert state_of(engine, catalog) == "publishing"
    assert publishing.publish_next(engine) == catalog
    assert values(engine) == {1: MANY}
    assert len(history(engine)) == MANY + 1


def test_failed_publish_is_retried_without_a_crawl(engine: Engine) -> None:
    given_a_scheme(engine)
    sql(engine, "DROP TABLE records.goods, records.goods_versions")
    catalog = given_a_loaded_catalog(engine, {"a": 1})
    for failures in (1, 2):
        with pytest.raises(exc.ProgrammingError):
            publishing.publish_next(engine)
        waiting = the_catalog(engine, catalog)
        assert (waiting["state"], waiting["publish_failures"]) == ("publishing", failures)
        assert waiting["publish_at"] > one(engine, "SELECT now() + interval '4 s'")
        time_passes(engine)
    given_record_tables(engine, "goods")
    assert publishing.publish_next(engine) == catalog
    assert current(engine) == {"a": 1}


def test_unpublishable_catalog_does_not_block_others(engine: Engine) -> None:
    given_a_scheme(engine)
    given_a_scheme(engine, an_operation("prices"), name="prices")
    sql(engine, "DROP TABLE records.goods, records.goods_versions")
    given_a_loaded_catalog(engine, {"a": 1})
    prices = given_a_loaded_catalog(engine, {"a": 1}, scheme="prices")
    with pytest.raises(exc.ProgrammingError):
        publishing.publish_next(engine)
    assert publishing.publish_next(engine) == prices


def test_publish_of_several_operations_is_atomic(engine: Engine) -> None:
    given_a_scheme(engine, an_operation("goods"), an_operation("prices"))
    sql(engine, "DROP TABLE records.prices, records.prices_versions")
    given_a_loaded_catalog(engine, {"a": 1})
    with pytest.raises(exc.ProgrammingError):
        publishing.publish_next(engine)
    assert current(engine, "goods") == {}


def test_concurrent_publishers_publish_each_catalog_once(engine: Engine) -> None:
    given_a_scheme(engine)
    expected = {given_a_loaded_catalog(engine, {"a": number, "b": 0}) for number in range(12)}
    published = []

    def publish() -> None:
        while sql(engine, "SELECT 1 FROM catlog.catalog WHERE state = 'publishing'"):
            published.append(publishing.publish_next(engine))

    at_once(*[publish] * 3)
    assert sorted(filter(None, published)) == sorted(expected)
    assert current(engine) == {"a": 11, "b": 0}
    # The publishes of one provider never ran at once, so none became stale.
    assert [state["value"] for state in history(engine)] == [*range(12), 0]


def test_concurrent_publishers_of_one_catalog_publish_once(engine: Engine) -> None:
    given_a_scheme(engine)
    for number in range(10):
        catalog = given_a_loaded_catalog(engine, {"a": number})
        publishers = [lambda waiting=catalog: publishing.publish(engine, waiting)] * 3
        assert at_once(*publishers).count(True) == 1
        assert current(engine) == {"a": number}


def test_readers_see_all_old_records_or_all_new_records(engine: Engine) -> None:
    given_a_scheme(engine)
    publishing.publish(engine, given_a_large_catalog(engine, 1))
    catalog = given_a_large_catalog(engine, 2)
    seen: list[dict[int, int]] = []
    published = threading.Event()

    def read() -> None:
        while not published.is_set():
            seen.append(values(engine))
        seen.append(values(engine))

    def publish() -> None:
        try:
            publishing.publish(engine, catalog)
        finally:
            published.set()

    at_once(read, publish)
    assert seen[-1] == {2: MANY}
    assert all(picture in ({1: MANY}, {2: MANY}) for picture in seen)
    assert seen == sorted(seen, key=min)


def test_long_transaction_sees_one_snapshot(engine: Engine) -> None:
    given_a_scheme(engine)
    load(engine, {"a": 1, "b": 1})
    reader = engine.connect().execution_options(isolation_level="REPEATABLE READ")
    picture = text("SELECT id, value FROM records.goods WHERE _removed_at IS NULL ORDER BY id")
    states = text("SELECT count(*) FROM records.goods_versions")
    with reader:
        before = reader.execute(picture).all()
        load(engine, {"a": 2, "b": 1, "c": 1})
        assert reader.execute(picture).all() == before
        assert reader.scalar(states) == 0
    assert current(engine) == {"a": 2, "b": 1, "c": 1}


def test_catalog_whose_rows_were_lost_is_not_published(engine: Engine) -> None:
    """Otherwise a full catalog would remove the records of the lost rows."""
    given_a_scheme(engine)
    load(engine, {"a": 1, "b": 1, "c": 1})
    catalog = given_a_loaded_catalog(engine, {"a": 1, "b": 1, "c": 1})
    sql(
        engine,
        """DELETE FROM catlog.catalog_operation_instance_result r
           USING catlog.catalog_scheme_operation_instance i
           WHERE i.id = r.instance_id AND i.catalog_id = :id AND key = 'c'""",
        id=catalog,
    )
    assert publishing.publish_next(engine) == catalog
    assert "has lost rows" in the_catalog(engine, catalog)["error"]
    assert current(engine) == {"a": 1, "b": 1, "c": 1}


def test_loading_catalog_is_not_published(engine: Engine) -> None:
    given_a_scheme(engine)
    assert not publishing.publish(engine, given_a_catalog(engine))
    assert publishing.publish_next(engine) is None


def test_a_load_that_breaks_a_unique_constraint_is_refused(engine: Engine) -> None:
    given_a_scheme(engine, an_operation(tolerate={"removed": 1.0}))
    given_fields(engine, {"id": "text", "code": "text", "shop": "bigint"})
    sql(engine, """UPDATE catlog.kind SET unique_fields = '[["code", "shop"]]'""")
    first = [{"id": "a", "code": "x", "shop": 1}, {"id": "b", "code": "y", "shop": 1}]
    assert load_records(engine, first)["state"] == "loaded"
    exchanged = [{"id": "a", "code": "y", "shop": 1}, {"id": "b", "code": "x", "shop": 1}]
    assert load_records(engine, exchanged)["state"] == "loaded"
    for further in ({"code": None, "shop": 1}, {"code": "x", "shop": 2}, {"code": None, "shop": 1}):
        exchanged = [*exchanged, {"id": str(len(exchanged)), **further}]
    assert load_records(engine, exchanged)["state"] == "loaded"
    before = sql(engine, "SELECT * FROM records.goods ORDER BY id")
    refused = load_records(engine, [*exchanged, {"id": "c", "code": "x", "shop": 1}])
    assert refused["state"] == "failed"
    assert refused["error"].startswith(
        "two records of goods have code 'x', shop '1', which the kind declares unique"
    )
    assert sql(engine, "SELECT * FROM records.goods ORDER BY id") == before
    moved = [{"id": "a", "code": "y", "shop": 1}, {"id": "c", "code": "x", "shop": 1}]
    assert load_records(engine, moved)["state"] == "loaded"
