"""Benchmark merge: records from the spider to the current view, against dlt."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Engine

from benchmarks.common import Scale, Server, crawl, declare, scalar
from benchmarks.measuring import Cost, in_turn
from benchmarks.report import Result, compare_cpu, compare_wall, note_costs
from benchmarks.rows import KEY, pages

# Cents of the changed prices of the second load.
CHANGED = "99"


def run(server: Server, scale: Scale) -> list[Result]:
    """Compare new records, and then 1 % changed ones, stored and published, with dlt's `merge`.

    dlt is the usual alternative: it takes dicts, infers and checks a schema, stages the rows and
    merges them by primary key into PostgreSQL. Same rows, same server, dlt's defaults. Both load
    all rows, and then all rows again, of which 1 % have another price.
    """
    count, rounds = scale.count(100_000, 200), scale.times(3)

    def measure_catlog() -> tuple[Cost, Cost]:
        with server.database() as engine:
            declare(server, engine, "in_batches")
            new = crawl(server, engine, "in_batches", count).load
            changed = crawl(server, engine, "in_batches", count, "-s", f"CHANGED={CHANGED}").load
            check_prices(engine, "public.products", count)
            return new, changed

    def measure_peer() -> tuple[Cost, Cost]:
        with server.database() as engine:
            folder = server.folder / f"dlt-{server.number()}"
            merge = dlt_merge(engine, folder)
            costs = []
            for changed in ("", CHANGED):
                ready = pages(count, changed)
                costs.append(server.meter.measure(lambda rows=ready: merge(rows)))  # type: ignore[misc]
            check_prices(engine, "dlt_bench.products", count)
            return costs[0], costs[1]

    catlog, peer = in_turn(rounds, measure_catlog, measure_peer)
    new, changed = zip(*catlog, strict=True)
    peers_new, peers_changed = zip(*peer, strict=True)
    note_costs(count, new=new, dlt_new=peers_new, changed=changed, dlt_changed=peers_changed)
    return [
        compare_cpu("merge", new, peers_new, ">=3", count),
        compare_wall("merge_wall", new, peers_new, ">=4", count),
        compare_cpu("merge_changed", changed, peers_changed, ">=4", count),
    ]


def check_prices(engine: Engine, table: str, count: int) -> None:
    """Raise RuntimeError if *table* does not hold the second load."""
    stored = scalar(engine, f"SELECT count(*) FROM {table}")
    if stored != count:
        raise RuntimeError(f"{table} has {stored:.0f} rows instead of {count}")
    query = f"SELECT count(*) FROM {table} WHERE CAST(price AS text) LIKE '%.{CHANGED}'"
    if not scalar(engine, query):
        raise RuntimeError(f"{table} has no changed prices")


def dlt_merge(engine: Engine, folder: Path) -> Callable[[list[list[dict[str, Any]]]], None]:
    """Return a function that merges pages of products by a pipeline of dlt."""
    os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
    os.environ["RUNTIME__LOG_LEVEL"] = "CRITICAL"
    import dlt

    # dlt requires a password, which the server ignores, and a host, where libpq accepts a folder.
    credentials = {
        "database": engine.url.database,
        "username": engine.url.username,
        "password": "none",
        "host": quote(str(engine.url.query["host"]), safe=""),
        "port": int(str(engine.url.query["port"])),
    }
    pipeline = dlt.pipeline(
        "bench",
        pipelines_dir=str(folder),
        destination=dlt.destinations.postgres(credentials),
        dataset_name="dlt_bench",
    )

    def merge(ready: list[list[dict[str, Any]]]) -> None:
        resource = dlt.resource(ready, name="products", write_disposition="merge", primary_key=KEY)
        pipeline.run(resource).raise_on_failed_jobs()

    return merge
