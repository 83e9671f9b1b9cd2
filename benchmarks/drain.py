"""What an operation costs that has hardly anything to do."""

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
    """Time of 200 one-item operations by `scrapy work --drain`, against 200 `scrapy crawl`.

    Both make, run and publish as many catalogs of the same operation; the worker does it in one
    process, as does a new interpreter for each crawl. Of the crawls, only some are run: the time
    of 200 is 200 times their median.
    """
    count, sample = (5, 2) if small else (200, 20)
    with server.database() as engine:
        declare(server, engine, "single")
        single = [seconds(lambda: crawl(server, engine, "single", 1)) for _ in range(sample)]
        peer = statistics.median(single) * count
        note(f"{count} crawls: {peer:.1f} s, scaled from {sample} measured")
        for _ in range(count):
            catalogs.create(engine, PROVIDER, SCHEME)
        mine = seconds(lambda: scrapy(server, engine, "work", "--drain"))
        note(f"{count} drained: {mine:.1f} s")
        if left := unloaded(engine):
            raise RuntimeError(f"{left} catalogs are not loaded")
    return Result("drain", mine / peer, "<=0.05")


def unloaded(engine: Engine) -> int:
    """How many catalogs did not come to what they were made for."""
    with engine.connect() as connection:
        query = "SELECT count(*) FROM catlog.catalog WHERE state <> 'loaded'"
        return int(connection.execute(text(query)).scalar_one())
