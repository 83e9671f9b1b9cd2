"""Benchmark disk: size of a record and its indexes."""

from sqlalchemy import Engine

from benchmarks.common import Scale, Server, declare, run_sql, scalar
from benchmarks.loads import load, product_rows, publish
from benchmarks.report import Result, note, sample_text
from benchmarks.rows import KEY
from benchmarks.tables import copy_indexes


def run(server: Server, scale: Scale) -> list[Result]:
    """Compare the bytes of a published record and its indexes with a plain typed table.

    The table has the columns of the view, and a primary key of the key fields, as anybody would
    make it by hand; further indexes are the same. Sizes do not vary: there is one round.
    """
    count = scale.count(100_000, 200)
    with server.database() as engine:
        declare(server, engine, "in_batches")
        publish(engine, load(engine, product_rows(count)))
        run_sql(
            engine,
            "CREATE SCHEMA plain",
            "CREATE TABLE plain.products (LIKE public.products)",
            f"ALTER TABLE plain.products ADD PRIMARY KEY ({', '.join(KEY)})",
        )
        copy_indexes(engine, "plain.products")
        run_sql(engine, "INSERT INTO plain.products SELECT * FROM public.products")
        record = sum(sizes(engine, "records.products", count))
        plain = sum(sizes(engine, "plain.products", count))
    return [
        Result(
            "disk",
            f"{record:.0f} B",
            f"{plain:.0f} B",
            record / plain,
            "<=1.1",
            sample_text(count, 1),
        )
    ]


def sizes(engine: Engine, table: str, count: int) -> tuple[float, float]:
    """Return the bytes of a row in *table*, and in its indexes."""
    heap = scalar(engine, f"SELECT pg_table_size('{table}')") / count
    indexes = scalar(engine, f"SELECT pg_indexes_size('{table}')") / count
    note(f"{table}: {heap:.0f} bytes a row, {indexes:.0f} in its indexes")
    return heap, indexes
