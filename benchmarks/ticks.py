"""Benchmark ticks: time until the loads of many due schedules can be claimed."""

import time

from benchmarks.common import Scale, Server, run_sql
from benchmarks.report import Result, count_text, note
from catlog_scrapy.store.maintenance.tick import tick
from catlog_scrapy.store.queue.claims import claim
from catlog_scrapy.store.queue.schedules.due import make_due_in_steps
from catlog_scrapy.store.queue.starting import start_waiting

PROVIDERS = 100


def run(server: Server, scale: Scale) -> list[Result]:
    """Measure the seconds of a scheduler's tick with 10 000 due schedules of 100 providers.

    All of them have catalogs with instances at the end. A first load can be claimed within a
    second: the note says when. The ratio is the time in seconds, without a peer.
    """
    count = scale.count(10_000, 200)
    with server.database() as engine:
        run_sql(
            engine,
            f"""INSERT INTO catlog.provider (name)
                SELECT 'shop' || n FROM generate_series(1, {PROVIDERS}) AS n""",
            """INSERT INTO catlog.catalog_scheme (provider_id, name, version)
               SELECT id, 'products', 1 FROM catlog.provider""",
            """INSERT INTO catlog.catalog_scheme_operation (scheme_id, name, spider, arguments)
               SELECT id, 'products', 'products', '{"day": "{due_at:%Y-%m-%d}"}'
               FROM catlog.catalog_scheme""",
            f"""INSERT INTO catlog.schedule (provider_id, scheme_name, name, cron, timezone,
                    next_due_at)
                SELECT p.id, 'products', n::text, (n % 60) || ' 3 * * *', 'Europe/Moscow',
                    clock_timestamp()
                FROM catlog.provider p, generate_series(1, {count // PROVIDERS}) AS n""",
            "ANALYZE",
        )
        before, started = server.meter.read(), time.perf_counter()
        first = 0.0
        made = 0
        for catalogs in make_due_in_steps(engine):
            made += len(catalogs)
            start_waiting(engine)
            if not first and claim(engine, "bench"):
                first = time.perf_counter() - started
        tick(engine, 60.0)
        cost = server.meter.read() - before
    if made != count:
        raise RuntimeError(f"{made} of {count} schedules have made a catalog")
    note(f"{made} catalogs, the first load claimed after {first:.2f} s; {cost}")
    return [Result("ticks", f"{cost.wall_s:.2f} s", "", cost.wall_s, "<=5", count_text(count))]
