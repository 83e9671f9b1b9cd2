"""Benchmark memory: growth of a crawl's memory with its items."""

from benchmarks.common import Scale, Server, crawl, declare
from benchmarks.report import Result, count_text, sample_text


def run(server: Server, scale: Scale) -> list[Result]:
    """Compare peak memory (MiB) of a crawl with 100 000 items and with 10 000 items.

    Items come once from a callback and once from `start()`, where Scrapy has no backpressure.
    Products are generated during the crawl, so that all memory is the crawl's. The reach is on the
    difference.
    """
    many = scale.count(100_000, 100)
    few = min(10_000, many // 2)
    lines = []
    for name, spider in {"memory": "from_callback", "memory_start": "from_start"}.items():
        peaks = [peak(server, spider, items) for items in scale.sizes(few, many)]
        lines.append(
            Result(
                name,
                f"{peaks[-1]:.0f} MiB",
                f"{peaks[0]:.0f} MiB",
                peaks[-1] - peaks[0],
                "<=64",
                f"{sample_text(many, 1)} to {count_text(few)}",
            )
        )
    return lines


def peak(server: Server, spider: str, items: int) -> float:
    """Return the peak memory of a process that runs *spider*, in MiB."""
    with server.database() as engine:
        declare(server, engine, spider)
        return crawl(server, engine, spider, items).peak
