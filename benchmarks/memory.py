"""Benchmark memory: growth of a crawl's memory with its items."""

from benchmarks.common import Result, Server, crawl, declare, note


def run(server: Server, small: bool) -> Result:
    """Compare peak memory (MiB) of a crawl with 1 000 000 items and with 10 000 items.

    Items come once from a callback and once from `start()`, where Scrapy has no backpressure. The
    larger difference counts. Products are generated during the crawl, so that all memory is the
    crawl's.
    """
    few, many = (100, 1_000) if small else (10_000, 1_000_000)
    grown = []
    for spider in ("from_callback", "from_start"):
        peaks = [peak(server, spider, items) for items in (few, many)]
        note(f"{spider}: {peaks[0]:.0f} MiB with {few} items, {peaks[1]:.0f} MiB with {many}")
        grown.append(peaks[1] - peaks[0])
    return Result("memory", max(grown), "<=64")


def peak(server: Server, spider: str, items: int) -> float:
    """Return the peak memory of a process that runs *spider*, in MiB."""
    with server.database() as engine:
        declare(server, engine, spider)
        return crawl(server, engine, spider, items).peak
