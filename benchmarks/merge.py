"""Benchmark merge: records from the spider to the current view."""

import os
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Engine, text

from benchmarks.common import Result, Server, alternate, crawl, declare, seconds
from benchmarks.rows import pages
from catlog_scrapy.items.ornaments import Product


def run(server: Server, small: bool) -> Result:
    """Compare rows per second of 1 000 000 records, stored and published, with dlt's `merge`.

    dlt is the usual alternative: it takes dicts, infers and checks a schema, stages the rows and
    merges them by primary key into PostgreSQL. Same rows, same server, dlt's defaults.
    """
    count = 2_000 if small else 1_000_000

    def measure_catlog() -> float:
        with server.database() as engine:
            declare(server, engine, "in_batches")
            opened_at = crawl(server, engine, "in_batches", count).opened_at
            return loaded_at(engine) - opened_at

    def measure_peer() -> float:
        with server.database() as engine:
            return merge_with_dlt(engine, server.folder / f"dlt_{server.made}", count)

    catlog, peer = alternate(1, measure_catlog, measure_peer)
    return Result("merge", peer / catlog, ">=3")


def loaded_at(engine: Engine) -> float:
    """Return the end of the load as Unix time; server and crawl share a clock."""
    with engine.connect() as connection:
        query = "SELECT extract(epoch FROM finished_at) FROM catlog.catalog WHERE state = 'loaded'"
        return float(connection.execute(text(query)).scalar_one())


def merge_with_dlt(engine: Engine, folder: Path, count: int) -> float:
    """Return the seconds that dlt needs for the first *count* products."""
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
    ready = pages(count)
    resource = dlt.resource(
        ready, name="products", write_disposition="merge", primary_key=Product.key_fields
    )
    taken = seconds(lambda: pipeline.run(resource).raise_on_failed_jobs())
    with engine.connect() as connection:
        stored = connection.execute(text("SELECT count(*) FROM dlt_bench.products")).scalar_one()
    if stored != count:
        raise RuntimeError(f"dlt merged {stored} rows of {count}")
    return taken
