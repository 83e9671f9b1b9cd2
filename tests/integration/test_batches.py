"""Batches: each is stored exactly once, even if its connection is lost."""

import io
import time
from uuid import UUID

import pytest
from sqlalchemy import Engine, exc, text

from catlog_scrapy.records.hashing import content_hash, record_id
from catlog_scrapy.store.queue import copy_format, results
from catlog_scrapy.store.queue.claims import Claim
from catlog_scrapy.store.queue.external_batches import count_batches
from catlog_scrapy.store.queue.results import (
    BatchUncertain,
    copy_batch,
    settle_batch,
    store_rejected,
)
from tests.support.factories import (
    at_once,
    claim_of,
    given_a_catalog,
    given_a_scheme,
    one,
    rows_for_copy,
    sql,
)
from tests.support.waiting import WAITING_BACKENDS

COUNT = "SELECT count(*) FROM catlog.catalog_operation_instance_result"
TEN = [(f"key {number}", number) for number in range(10)]


@pytest.fixture
def claimed(engine: Engine) -> Claim:
    given_a_scheme(engine)
    return claim_of(engine, given_a_catalog(engine))


def batch(claimed: Claim, first: int = 0) -> bytearray:
    return rows_for_copy(claimed.attempt, claimed.provider_id, "goods", TEN, first)


def test_batch_is_stored_unchanged(engine: Engine, claimed: Claim) -> None:
    copy_batch(engine, batch(claimed))
    found = sql(engine, "SELECT * FROM catlog.catalog_operation_instance_result ORDER BY seq")
    assert [row["key"] for row in found] == [key for key, _ in TEN]
    assert found[3] == {
        "instance_id": claimed.attempt.instance,
        "attempt": 1,
        "seq": 3,
        "kind": "goods",
        "key": "key 3",
        "key_hash": record_id(claimed.provider_id, "key 3"),
        "content_hash": UUID(bytes=content_hash(b'{"id":"key 3","value":3}')),
        "data": {"id": "key 3", "value": 3},
        "link": None,
    }


def test_a_batch_is_not_stored_twice(engine: Engine, claimed: Claim) -> None:
    copy_batch(engine, batch(claimed))
    with pytest.raises(engine.dialect.loaded_dbapi.IntegrityError):
        copy_batch(engine, batch(claimed))
    assert one(engine, COUNT) == 10
    copy_batch(engine, batch(claimed, 10))
    assert one(engine, COUNT) == 20


def test_a_batch_that_cannot_be_read_leaves_the_connection_usable(
    engine: Engine, claimed: Claim
) -> None:
    with pytest.raises(engine.dialect.loaded_dbapi.DataError):
        copy_batch(engine, batch(claimed) + b"nonsense")
    assert one(engine, COUNT) == 0
    copy_batch(engine, batch(claimed))


def test_unlisted_backend_is_an_error_that_is_retried(
    engine: Engine, claimed: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "row", lambda *_, **__: None)
    with pytest.raises(exc.OperationalError, match="no row for this backend"):
        copy_batch(engine, batch(claimed))
    assert one(engine, COUNT) == 0


def test_items_of_batches_are_counted_beyond_32_bits(engine: Engine, claimed: Claim) -> None:
    sql(
        engine,
        """INSERT INTO catlog.result_batch (instance_id, attempt, number, hash, accepted, rejected)
           SELECT :instance, 1, number, '', 2147483647, 2147483647
           FROM generate_series(1, 3) AS number""",
        instance=claimed.attempt.instance,
    )
    with engine.connect() as connection:
        assert count_batches(connection, claimed.attempt) == (3, 6442450941, 6442450941)


def cut_the_copy(engine: Engine) -> None:
    """Terminate the backend that stores a batch while it waits for the table's lock."""
    query = f"SELECT pg_terminate_backend(pid) FROM ({WAITING_BACKENDS}) AS waiting"
    while not sql(engine, query):
        time.sleep(0.01)


def test_a_batch_cut_off_in_the_middle_is_uncertain_and_not_stored(
    engine: Engine, claimed: Claim
) -> None:
    def copy() -> BatchUncertain:
        with pytest.raises(BatchUncertain) as caught:
            copy_batch(engine, batch(claimed))
        return caught.value

    with engine.connect() as blocking:
        blocking.execute(text("LOCK TABLE catlog.catalog_operation_instance_result IN SHARE MODE"))
        uncertain, _ = at_once(copy, lambda: cut_the_copy(engine))
        blocking.rollback()
    assert not settle_batch(engine, uncertain.backend, claimed.attempt, 0, 10)
    copy_batch(engine, batch(claimed))
    assert one(engine, COUNT) == 10


def test_a_batch_whose_answer_was_lost_is_found_stored(engine: Engine, claimed: Claim) -> None:
    copy_batch(engine, batch(claimed))
    pid = one(engine, "SELECT pg_backend_pid()")
    gone = results.BackendTransaction(pid, "2026-01-01", "2026-01-01")
    assert settle_batch(engine, gone, claimed.attempt, 0, 10)
    assert not settle_batch(engine, gone, claimed.attempt, 10, 10)
    assert not settle_batch(engine, gone, claimed.attempt, 5, 10)


def test_settling_a_batch_waits_for_the_end_of_a_working_backend(
    engine: Engine, claimed: Claim
) -> None:
    """The client has given up on the backend, but the backend may still store the batch."""
    slow = engine.connect()
    backend = results._backend(slow)
    driver = slow.connection.dbapi_connection
    assert driver
    with driver.cursor() as cursor:
        cursor.copy_expert(copy_format.COPY, io.BytesIO(copy_format.copy_message(batch(claimed))))
    assert not settle_batch(engine, backend, claimed.attempt, 0, 10)
    assert sql(engine, "SELECT 1 FROM pg_stat_activity WHERE pid = :pid", pid=backend[0]) == []
    with pytest.raises(engine.dialect.loaded_dbapi.OperationalError):
        driver.commit()
    slow.invalidate()
    slow.close()
    assert one(engine, COUNT) == 0


def test_settling_a_batch_leaves_a_newer_backend_with_the_same_pid(
    engine: Engine, claimed: Claim
) -> None:
    with engine.connect() as bystander:
        newer = results._backend(bystander)._replace(backend_start="2026-01-01")
        settle_batch(engine, newer, claimed.attempt, 0, 10)
        assert bystander.scalar(text("SELECT 1")) == 1


def test_settling_a_batch_leaves_a_later_transaction_of_its_backend(
    engine: Engine, claimed: Claim
) -> None:
    with engine.connect() as bystander:
        former = results._backend(bystander)
        bystander.commit()
        assert results._backend(bystander).pid == former.pid
        settle_batch(engine, former, claimed.attempt, 0, 10)
        assert bystander.scalar(text("SELECT 1")) == 1


def test_rejected_items_are_kept_within_bounds(engine: Engine, claimed: Claim) -> None:
    huge = "x" * 100_000
    store_rejected(engine, claimed.attempt, [("http://a.example", huge, ["no key", "no price"])])
    [kept] = sql(engine, "SELECT * FROM catlog.rejected_result")
    assert len(kept["data"]) == results.MAX_REJECTED_ITEM_BYTES
    assert kept["errors"] == ["no key", "no price"]
