"""Benchmark ten_million: a load of 10 000 000 records."""

from benchmarks.common import Scale, Server, crawl, declare, scalar
from benchmarks.measuring import Cost
from benchmarks.report import Result, compare_cpu, note, note_costs
from benchmarks.spill import MemoryPeak, temporary_mib

FEW = 100_000


def run(server: Server, scale: Scale) -> list[Result]:
    """Compare the CPU of a record in a load of 10 000 000 with a load of 100 000.

    The spider generates its batches, so that none stays in memory. Also printed: time, memory,
    temporary files and disk. It takes long, so that only its name runs it.
    """
    count = scale.count(10_000_000, 400)
    few = min(FEW, count // 2)
    costs = [measure(server, size) for size in scale.sizes(few, count)]
    note_costs(1, many=[costs[-1]], few=[costs[0]])
    result = compare_cpu("ten_million", [costs[-1]], [costs[0]], "<=1.5", 1)
    return [Result(**{**vars(result), "sample": f"{count}"})]


def measure(server: Server, count: int) -> Cost:
    """Return the cost of one record in a load of *count* products."""
    with server.database() as engine:
        declare(server, engine, "in_generated_batches")
        before = temporary_mib(engine)
        with MemoryPeak(server.meter) as peak:
            crawled = crawl(server, engine, "in_generated_batches", count)
        loaded = scalar(engine, "SELECT count(*) FROM public.products")
        if loaded != count:
            raise RuntimeError(f"{loaded:.0f} of {count} products are published")
        note(f"{count} records: {crawled.load}")
        note(
            f"memory: {crawled.peak:.0f} MiB in the crawl, {peak.mib:.0f} MiB in backends;"
            f" temporary files: {temporary_mib(engine) - before:.0f} MiB"
        )
        for name, query in {
            "database": "pg_database_size(current_database())",
            "records": "pg_total_relation_size('records.products')",
        }.items():
            note(f"{name}: {scalar(engine, f'SELECT {query}') / 2**20:.0f} MiB on disk")
        load = crawled.load
        return Cost(load.wall_s / count, load.client_s / count, load.server_s / count)
