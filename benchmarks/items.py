"""Benchmarks items and feeds: cost of validation and storage for single items."""

from benchmarks.common import Result, Server, alternate, crawl, declare


def run(server: Server, small: bool) -> Result:
    """Compare the time of 100 000 items from a callback with the spider without catlog's pipelines.

    The same class in the same project and kind of process, once as an operation and once not:
    Scrapy's own work for an item is in both times. The clock stops when all items are stored.
    """
    return Result("items", compare(server, small), "<=0.6")


def feeds(server: Server, small: bool) -> Result:
    """Compare the time of 100 000 items from a callback with Scrapy's feed export to JSON lines.

    The peer writes the items of the same class to a file, and validates nothing.
    """
    return Result("feeds", compare(server, small, "-O", str(server.folder / "feed.jsonl")), "<=0.4")


def compare(server: Server, small: bool, *words: str) -> float:
    """Return catlog's share of the time of a crawl without an operation, with further *words*."""
    count = 500 if small else 100_000

    def measure_catlog() -> float:
        with server.database() as engine:
            declare(server, engine, "one_by_one")
            return crawl(server, engine, "one_by_one", count).seconds

    def measure_peer() -> float:
        with server.database() as engine:
            return crawl(server, engine, "unwatched", count, *words).seconds

    catlog, peer = alternate(1 if small else 3, measure_catlog, measure_peer)
    return catlog / peer
