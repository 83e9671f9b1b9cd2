"""Benchmark drain: cost of operations that yield one item."""

import statistics

from sqlalchemy import Engine, text

from benchmarks.common import (
    PROVIDER,
    SCHEME,
    Result,
    Server,
    crawl,
    declare,
    note,
    scrapy,
    seconds,
)
from catlog_scrapy.store.queue import catalogs


def run(server: Server, small: bool) -> Result:
    """Compare the time of 200 one-item operations by `scrapy work --drain` with 200 `scrapy crawl`.

    Both create, run and publish as many catalogs of the same operation. The worker uses one
    process, each crawl a new interpreter. Only some crawls run: the time of 200 crawls is 200
    times the median.
    """
    count, sample = (5, 2) if small else (200, 20)
    with server.database() as engine:
        declare(server, engine, "single")
        single = [seconds(lambda: crawl(server, engine, "single", 1)) for _ in range(sample)]
        peer = statistics.median(single) * count
        note(f"{count} crawls: {peer:.1f} s, scaled from {sample} measured")
        for _ in range(count):
            catalogs.create(engine, PROVIDER, SCHEME)
        drained = seconds(lambda: scrapy(server, engine, "work", "--drain"))
        note(f"{count} drained: {drained:.1f} s")
        if left := unloaded(engine):
            raise RuntimeError(f"{left} catalogs are not loaded")
    return Result("drain", drained / peer, "<=0.05")


def unloaded(engine: Engine) -> int:
    """Return the number of catalogs that are not loaded."""
    with engine.connect() as connection:
        query = "SELECT count(*) FROM catlog.catalog WHERE state <> 'loaded'"
        return int(connection.execute(text(query)).scalar_one())
