"""Results of attempts: written by COPY, one batch in a transaction, and never twice."""

import io
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from sqlalchemy import Connection, Engine, exc, text

from catlog_scrapy.store.queue.attempts import AttemptName
from catlog_scrapy.store.queue.copy_format import COPY, copy_message
from catlog_scrapy.store.queue.result_partitions import DEFAULT_PARTITION, TablesOfInstances
from catlog_scrapy.store.sql import Database, clean, row, rows, run, scalar

# An attempt keeps so many rejected items, each up to this size.
MAX_REJECTED_ITEM_BYTES = 65536
MAX_REJECTED_ITEMS = 1000


class BackendTransaction(NamedTuple):
    """Transaction of a server process. A pooler gives the process to others after it."""

    pid: int
    backend_start: Any
    xact_start: Any


class BatchUncertain(Exception):
    """The connection broke while a batch was sent; `backend` may still work on it.

    Raised by `copy_batch`; settle it with `settle_batch` before sending the batch again.
    """

    def __init__(self, backend: BackendTransaction) -> None:
        super().__init__(f"the connection of backend {backend.pid} broke")
        self.backend = backend


def copy_batch(engine: Engine, batch: bytearray) -> None:
    """Store the rows of *batch*, made by `write_rows`, as one transaction.

    Raises BatchUncertain if the connection broke, so that the rows may be stored or not, and
    OperationalError if no connection could be made, so that they are not stored.
    """
    with engine.connect() as connection:
        backend = _backend(connection)
        try:
            driver = connection.connection.driver_connection
            if driver is None:
                raise BatchUncertain(backend)
            with driver.cursor() as cursor:
                # In one piece: for each piece the thread would wait for the interpreter's lock,
                # which a busy spider releases every 5 ms.
                message = copy_message(batch)
                cursor.copy_expert(COPY, io.BytesIO(message), size=len(message))
            driver.commit()
        except (
            engine.dialect.loaded_dbapi.OperationalError,
            engine.dialect.loaded_dbapi.InterfaceError,
        ) as error:
            connection.invalidate()
            raise BatchUncertain(backend) from error
        except engine.dialect.loaded_dbapi.DatabaseError as error:
            # psycopg2 raises plain DatabaseError for some of the ways in which a connection ends.
            if driver is None or driver.closed:
                connection.invalidate()
                raise BatchUncertain(backend) from error
            driver.rollback()
            raise


def copy_rows(connection: Connection, batch: bytearray) -> None:
    """Store the rows of *batch*, made by `write_rows`, in the connection's transaction.

    Raises OperationalError if the connection breaks; then the transaction is rolled back.
    """
    driver = connection.connection.driver_connection
    errors = connection.dialect.loaded_dbapi
    if driver is None:
        raise exc.OperationalError(COPY, None, Exception("the connection is closed"))
    try:
        with driver.cursor() as cursor:
            cursor.copy_expert(COPY, io.BytesIO(copy_message(batch)))
    except errors.Error as error:
        if driver.closed:
            connection.invalidate()
            raise exc.OperationalError(COPY, None, error) from error
        if isinstance(error, errors.OperationalError):
            raise exc.OperationalError(COPY, None, error) from error
        raise


def _backend(connection: Connection) -> BackendTransaction:
    query = """SELECT pid, backend_start, xact_start FROM pg_stat_activity
        WHERE pid = pg_backend_pid()"""
    found = row(connection, query)
    if found is None:  # retried by the caller
        raise exc.OperationalError(query, None, Exception("no row for this backend"))
    return BackendTransaction(**found)


def settle_batch(
    engine: Engine, backend: BackendTransaction, name: AttemptName, first: int, count: int
) -> bool:
    """End the transaction of *backend*, and return whether the batch is stored.

    The batch has *count* rows, numbered from *first*. Raises OperationalError while the database
    is unavailable: call again.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while row(
            connection,
            """SELECT pg_terminate_backend(pid), pg_sleep(0.05) FROM pg_stat_activity
               WHERE pid = :pid AND backend_start = :backend_start
                 AND xact_start IS NOT DISTINCT FROM CAST(:xact_start AS timestamptz)
                 AND pid <> pg_backend_pid()""",
            **backend._asdict(),
        ):
            pass
        stored = scalar(
            connection,
            """SELECT count(*) FROM catlog.catalog_operation_instance_result
               WHERE instance_id = :instance AND attempt = :number
                 AND seq >= :first AND seq < :first + :count""",
            instance=name.instance,
            number=name.number,
            first=first,
            count=count,
        )
    return bool(stored == count)


def store_rejected(
    engine: Database, name: AttemptName, rejected: Sequence[tuple[str | None, str, list[str]]]
) -> None:
    """Store rejected items: (URL, data, reasons).

    The caller bounds them to MAX_REJECTED_ITEMS per attempt.
    """
    with engine.begin() as connection:
        connection.execute(
            text(
                """INSERT INTO catlog.rejected_result (instance_id, attempt, url, data, errors)
                   VALUES (:instance, :number, :url, :data, CAST(:errors AS jsonb))"""
            ),
            [
                {
                    "instance": name.instance,
                    "number": name.number,
                    "url": clean(url) if url else None,
                    "data": data[:MAX_REJECTED_ITEM_BYTES],
                    "errors": orjson.dumps([clean(error) for error in errors]).decode(),
                }
                for url, data, errors in rejected
            ],
        )


def purge_batch_log(connection: Connection) -> int:
    """Delete the batch numbers of attempts that have ended, and return their count."""
    return run(
        connection,
        """DELETE FROM catlog.result_batch b WHERE NOT EXISTS (
               SELECT 1 FROM catlog.instance_attempt a
               WHERE a.instance_id = b.instance_id AND a.attempt = b.attempt
                 AND a.outcome IS NULL)""",
    )


def purge_unfinished_attempts(
    connection: Connection, catalog_ids: Collection[UUID], *, limit: int | None = None
) -> int:
    """Delete the results of all attempts but the done ones of ended catalogs.

    Pruning repeats it, because a late COPY may arrive after the catalog's end. Returns the number
    of rows, at most *limit*.
    """
    attempts = rows(
        connection,
        """SELECT a.instance_id, a.attempt FROM catlog.catalog c
           JOIN catlog.catalog_scheme_operation_instance i ON i.catalog_id = c.id
           JOIN catlog.instance_attempt a ON a.instance_id = i.id
           WHERE c.id = ANY(CAST(:ids AS uuid[])) AND c.state IN ('loaded', 'failed', 'cancelled')
             AND a.outcome <> 'done'""",
        ids=[str(catalog_id) for catalog_id in catalog_ids],
    )
    unfinished = [(attempt["instance_id"], attempt["attempt"]) for attempt in attempts]
    return sum(_delete(connection, unfinished, limit).values())


def delete_results(
    connection: Connection, instances: Collection[UUID], *, limit: int | None = None
) -> Counter[UUID]:
    """Delete all results of *instances*, at most *limit*; return their numbers by instance."""
    return _delete(connection, [(instance, None) for instance in instances], limit)


def _delete(
    connection: Connection, attempts: Sequence[tuple[UUID, int | None]], limit: int | None
) -> Counter[UUID]:
    """Delete the results of *attempts*; the number None stands for all attempts of an instance.

    Each statement names one partition, so that PostgreSQL plans and locks no other.
    """
    deleted: Counter[UUID] = Counter()
    by_table: dict[str, list[tuple[UUID, int | None]]] = {}
    if attempts:
        tables = TablesOfInstances(connection)
        for attempt in attempts:
            by_table.setdefault(tables[attempt[0]], []).append(attempt)
    for table, listed in by_table.items():
        found = rows(
            connection,
            f"""WITH gone AS (
                    DELETE FROM catlog.{table} WHERE ctid = ANY(ARRAY(
                        SELECT r.ctid
                        FROM unnest(CAST(:instances AS uuid[]), CAST(:numbers AS int[]))
                            AS g (instance, attempt)
                        JOIN catlog.{table} r ON r.instance_id = g.instance
                            AND r.attempt = coalesce(g.attempt, r.attempt)
                        LIMIT :limit))
                    RETURNING instance_id)
                SELECT instance_id, count(*) AS rows FROM gone GROUP BY 1""",
            instances=[str(instance) for instance, _ in listed],
            numbers=[number for _, number in listed],
            limit=None if limit is None else limit - deleted.total(),
        )
        deleted.update({instance["instance_id"]: instance["rows"] for instance in found})
    return deleted


def purge_orphans(connection: Connection, before: UUID, limit: int) -> int:
    """Delete up to *limit* results without an instance, which late batches have left.

    Their instances, whose ids are below *before*, were pruned, and probably their partitions too:
    the results are in the default partition.
    """
    return run(
        connection,
        f"""DELETE FROM catlog.{DEFAULT_PARTITION} WHERE ctid = ANY(ARRAY(
                SELECT r.ctid FROM catlog.{DEFAULT_PARTITION} r
                WHERE r.instance_id < :before AND NOT EXISTS (
                    SELECT 1 FROM catlog.catalog_scheme_operation_instance i
                    WHERE i.id = r.instance_id)
                LIMIT :limit))""",
        before=before,
        limit=limit,
    )
