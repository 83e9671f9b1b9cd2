"""Benchmark store: validation and storage of batches against a bare COPY."""

import io
from typing import Any

from sqlalchemy import Engine, PoolProxiedConnection

from benchmarks.common import Result, Server, alternate, crawl, declare, run_sql, seconds
from benchmarks.rows import BATCH
from catlog_scrapy.store.queue.results import COPY

TABLE = "catlog.catalog_operation_instance_result"


def run(server: Server, small: bool) -> Result:
    """Compare rows per second of 1 000 000 records in batches with a bare COPY of the same rows.

    The peer copies the rows that catlog stored, prepared as text, into a table with the same
    columns and primary key: one client, one transaction per 10 000 rows. It neither builds nor
    validates rows, so its speed is the database's limit.
    """
    count = 2_000 if small else 1_000_000
    with server.database() as source:
        declare(server, source, "in_batches")
        crawl(server, source, "in_batches", count)
        batches = stored_batches(source)

    def measure_catlog() -> float:
        with server.database() as engine:
            declare(server, engine, "in_batches")
            return crawl(server, engine, "in_batches", count).seconds

    def measure_peer() -> float:
        with server.database() as engine:
            run_sql(engine, f"CREATE TABLE catlog.bare (LIKE {TABLE} INCLUDING ALL)")
            return seconds(lambda: copy_all(engine, batches))

    catlog, peer = alternate(1 if small else 3, measure_catlog, measure_peer)
    return Result("store", peer / catlog, ">=0.4")


def stored_batches(engine: Engine) -> list[bytes]:
    """Return the stored results in COPY's text format, in batches."""
    whole = io.BytesIO()
    connection = engine.raw_connection()
    copy_expert(connection, COPY.replace("FROM STDIN", "TO STDOUT"), whole)
    connection.close()
    lines = whole.getvalue().splitlines(keepends=True)
    return [b"".join(lines[first : first + BATCH]) for first in range(0, len(lines), BATCH)]


def copy_expert(connection: PoolProxiedConnection, statement: str, file: io.BytesIO) -> None:
    """Run a COPY that reads or writes *file*."""
    cursor: Any = connection.cursor()
    cursor.copy_expert(statement, file)
    cursor.close()


def copy_all(engine: Engine, batches: list[bytes]) -> None:
    """Copy all *batches*, each in its own transaction."""
    connection = engine.raw_connection()
    for batch in batches:
        copy_expert(connection, COPY.replace(TABLE, "catlog.bare"), io.BytesIO(batch))
        connection.commit()
    connection.close()
