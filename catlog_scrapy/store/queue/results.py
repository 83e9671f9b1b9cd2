"""Results of attempts: written by COPY, one batch in a transaction, and never twice."""

import io
import re
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection, Engine, exc, text

from catlog_scrapy.records.validation import Row
from catlog_scrapy.store.queue.attempts import AttemptName
from catlog_scrapy.store.sql import Database, clean, row, run, scalar

# An attempt keeps so many rejected items, each up to this size.
MAX_REJECTED_ITEM_BYTES = 65536
MAX_REJECTED_ITEMS = 1000

COPY = """COPY catlog.catalog_operation_instance_result
    (instance_id, attempt, seq, kind, key, data) FROM STDIN"""

ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
NEEDS_ESCAPE = re.compile(r"[\\\t\n\r]").search


def line_prefix(name: AttemptName) -> str:
    """Return the beginning of all lines of an attempt, for `write_lines`."""
    return f"{name.instance}\t{name.number}\t"


def write_lines(batch: bytearray, prefix: str, number: int, rows: Iterable[Row]) -> int:
    """Append *rows* in COPY's text format, numbered from *number*; return the next number."""
    for kind, key, data in rows:
        plain = key.translate(ESCAPES) if NEEDS_ESCAPE(key) else key
        batch += f"{prefix}{number}\t{kind}\t{plain}\t".encode()
        batch += b"\\N" if data is None else data.replace(b"\\", b"\\\\")
        batch += b"\n"
        number += 1
    return number


class BatchUncertain(Exception):
    """The connection broke while a batch was sent; `backend` (pid, start) may still work on it.

    Raised by `copy_batch`; settle it with `settle_batch` before sending the batch again.
    """

    def __init__(self, backend: tuple[int, Any]) -> None:
        super().__init__(f"the connection of backend {backend[0]} broke")
        self.backend = backend


def copy_batch(engine: Engine, lines: bytes) -> None:
    """Store *lines*, in COPY's text format, as one transaction.

    Raises BatchUncertain if the connection broke, so that the lines may be stored or not, and
    OperationalError if no connection could be made, so that they are not stored.
    """
    with engine.connect() as connection:
        backend = _backend(connection)
        try:
            driver = connection.connection.driver_connection
            if driver is None:
                raise BatchUncertain(backend)
            with driver.cursor() as cursor:
                cursor.copy_expert(COPY, io.BytesIO(lines))
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


def copy_lines(connection: Connection, lines: bytes | bytearray) -> None:
    """Store *lines*, in COPY's text format, in the connection's transaction.

    Raises OperationalError if the connection breaks; then the transaction is rolled back.
    """
    driver = connection.connection.driver_connection
    errors = connection.dialect.loaded_dbapi
    if driver is None:
        raise exc.OperationalError(COPY, None, Exception("the connection is closed"))
    try:
        with driver.cursor() as cursor:
            cursor.copy_expert(COPY, io.BytesIO(lines))
    except errors.Error as error:
        if driver.closed:
            connection.invalidate()
            raise exc.OperationalError(COPY, None, error) from error
        if isinstance(error, errors.OperationalError):
            raise exc.OperationalError(COPY, None, error) from error
        raise


def _backend(connection: Connection) -> tuple[int, Any]:
    query = "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"
    found = row(connection, query)
    if found is None:  # retried by the caller
        raise exc.OperationalError(query, None, Exception("no row for this backend"))
    return found["pid"], found["backend_start"]


def settle_batch(
    engine: Engine, backend: tuple[int, Any], name: AttemptName, first: int, count: int
) -> bool:
    """End the *backend*, wait until it has gone, and return whether the batch is stored.

    The batch has *count* rows, numbered from *first*. Raises OperationalError while the database
    is unavailable: call again.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        values = {"pid": backend[0], "start": backend[1]}
        while row(
            connection,
            """SELECT pg_terminate_backend(pid), pg_sleep(0.05) FROM pg_stat_activity
               WHERE pid = :pid AND backend_start = :start AND pid <> pg_backend_pid()""",
            **values,
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


def purge_unfinished_attempts(connection: Connection, catalog_id: UUID | None = None) -> int:
    """Delete the results of all attempts but the done ones of an ended catalog.

    Without *catalog_id*, of all ended catalogs: prune does that, because a late COPY may arrive
    after the catalog's end. Returns the number of rows.
    """
    return run(
        connection,
        """DELETE FROM catlog.catalog_operation_instance_result r
           USING catlog.catalog_scheme_operation_instance i, catlog.instance_attempt a,
               catlog.catalog c
           WHERE (CAST(:id AS uuid) IS NULL OR c.id = :id)
             AND c.state IN ('loaded', 'failed', 'cancelled')
             AND i.catalog_id = c.id AND a.instance_id = i.id
             AND r.instance_id = i.id AND r.attempt = a.attempt
             AND a.outcome <> 'done'""",
        id=catalog_id,
    )
