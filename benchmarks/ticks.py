"""Benchmark ticks: time until the loads of many due schedules can be claimed."""

import time

from benchmarks.common import Result, Server, note, run_sql
from catlog_scrapy.store.maintenance.tick import tick
from catlog_scrapy.store.queue.claims import claim
from catlog_scrapy.store.queue.schedules.due import make_due_in_steps
from catlog_scrapy.store.queue.starting import start_waiting

PROVIDERS = 100


def run(server: Server, small: bool) -> Result:
    """Measure the seconds of a scheduler's tick with 10 000 due schedules of 100 providers.

    All of them have catalogs with instances at the end. A first load can be claimed within a
    second: the note says when. CPU time of the client is noted too.
    """
    count = 200 if small else 10_000
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
        started, cpu = time.perf_counter(), time.process_time()
        first = 0.0
        made = 0
        for catalogs in make_due_in_steps(engine):
            made += len(catalogs)
            start_waiting(engine)
            if not first and claim(engine, "bench"):
                first = time.perf_counter() - started
        tick(engine, 60.0)
        took, used = time.perf_counter() - started, time.process_time() - cpu
    if made != count:
        raise RuntimeError(f"{made} of {count} schedules have made a catalog")
    note(f"{made} catalogs, the first load claimed after {first:.2f} s; {used:.2f} s of CPU here")
    return Result("ticks", took, "<=5")
