"""Benchmark items: cost of validation and storage for single items."""

from benchmarks.common import Result, Server, alternate, crawl, declare


def run(server: Server, small: bool) -> Result:
    """Compare the time of 100 000 items from a callback with the spider without catlog's pipelines.

    The same class in the same project and kind of process, once as an operation and once not:
    Scrapy's own work for an item is in both times. The clock stops when all items are stored.
    """
    count = 500 if small else 100_000

    def measure_catlog() -> float:
        with server.database() as engine:
            declare(server, engine, "one_by_one")
            return crawl(server, engine, "one_by_one", count).seconds

    def measure_peer() -> float:
        with server.database() as engine:
            return crawl(server, engine, "unwatched", count).seconds

    catlog, peer = alternate(1 if small else 3, measure_catlog, measure_peer)
    return Result("items", catlog / peer, "<=1.5")
