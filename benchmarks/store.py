"""Benchmark store: validation and storage of batches against a bare COPY."""

import io
from typing import Any

import orjson
from sqlalchemy import Engine

from benchmarks.common import Scale, Server, crawl, declare, run_sql
from benchmarks.measuring import Cost, in_turn
from benchmarks.project.items import Product
from benchmarks.report import Result, compare_cpu, note_costs
from benchmarks.rows import BATCH, products


def run(server: Server, scale: Scale) -> list[Result]:
    """Compare the CPU of records in batches, stored, with a bare COPY of the same jsonb.

    The peer copies the content of the records, prepared as text, into a table with one column of
    jsonb and no index: one client, one transaction per 10 000 rows. It neither builds nor
    validates rows, so its speed is the database's limit.
    """
    count, rounds = scale.count(200_000, 200), scale.times()
    batches = jsonb_batches(count)

    def measure_catlog() -> Cost:
        with server.database() as engine:
            declare(server, engine, "in_batches")
            return crawl(server, engine, "in_batches", count).crawl

    def measure_peer() -> Cost:
        with server.database() as engine:
            run_sql(engine, "CREATE TABLE public.bare (data jsonb)")
            return server.meter.measure(lambda: copy_all(engine, batches))

    catlog, peer = in_turn(rounds, measure_catlog, measure_peer)
    note_costs(count, catlog=catlog, copy=peer)
    return [compare_cpu("store", catlog, peer, ">=0.5", count)]


def jsonb_batches(count: int) -> list[bytes]:
    """Return the records' content in COPY's text format, in batches; nothing needs escapes."""
    lines = [
        orjson.dumps(Product.model_validate(one).model_dump(mode="json")) + b"\n"
        for one in products(count)
    ]
    return [b"".join(lines[first : first + BATCH]) for first in range(0, count, BATCH)]


def copy_all(engine: Engine, batches: list[bytes]) -> None:
    """Copy all *batches*, each in its own transaction."""
    connection: Any = engine.raw_connection()
    for batch in batches:
        with connection.cursor() as cursor:
            cursor.copy_expert("COPY public.bare (data) FROM STDIN", io.BytesIO(batch))
        connection.commit()
    connection.close()
