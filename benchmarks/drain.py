"""Benchmark drain: cost of operations that yield one item."""

import statistics

from sqlalchemy import Engine, text

from benchmarks.common import PROVIDER, SCHEME, Scale, Server, crawl, declare, scrapy
from benchmarks.measuring import Cost, cpu, wall
from benchmarks.report import Result, note, sample_text, seconds_text
from catlog_scrapy.store.queue import catalogs


def run(server: Server, scale: Scale) -> list[Result]:
    """Compare 200 one-item operations by `scrapy work --drain` with 200 `scrapy crawl`.

    Both create, run and publish as many catalogs of the same operation. The worker uses one
    process, each crawl a new interpreter. Only some crawls run, whose median counts; there is one
    drain. The ratio is that of the wall times.
    """
    count, sample = scale.count(200, 2), 1 if scale.small else 5
    with server.database() as engine:
        declare(server, engine, "single")
        crawls = [
            server.meter.measure(lambda: crawl(server, engine, "single", 1)) for _ in range(sample)
        ]
        for _ in range(count):
            catalogs.create(engine, PROVIDER, SCHEME)
        drain = server.meter.measure(lambda: scrapy(server, engine, "work", "--drain"))
        if left := unloaded(engine):
            raise RuntimeError(f"{left} catalogs are not loaded")
    drained = Cost(drain.wall_s / count, drain.client_s / count, drain.server_s / count)
    single_s = statistics.median(wall(crawls))
    note(f"CPU: {drained.cpu_s:.4f} s drained, {statistics.median(cpu(crawls)):.3f} s a crawl")
    return [
        Result(
            "drain",
            seconds_text(drained.wall_s, "wall"),
            seconds_text(single_s, "wall"),
            drained.wall_s / single_s,
            "<=0.05",
            sample_text(count, 1),
        )
    ]


def unloaded(engine: Engine) -> int:
    """Return the number of catalogs that are not loaded."""
    with engine.connect() as connection:
        query = "SELECT count(*) FROM catlog.catalog WHERE state <> 'loaded'"
        return int(connection.execute(text(query)).scalar_one())
