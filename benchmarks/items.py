"""What check and store cost a spider that yields items one by one."""

from benchmarks.common import Result, Server, alternate, crawl, declare


def run(server: Server, small: bool) -> Result:
    """Time of 100 000 items from a callback, against the same spider without check and store.

    The same class in the same project and kind of process, once as an operation and once not:
    Scrapy's own work for an item is in both times. The clock stops when all is stored.
    """
    count = 500 if small else 100_000

    def ours() -> float:
        with server.database() as engine:
            declare(server, engine, "one_by_one")
            return crawl(server, engine, "one_by_one", count).seconds

    def peer() -> float:
        with server.database() as engine:
            return crawl(server, engine, "unwatched", count).seconds

    mine, theirs = alternate(1 if small else 3, ours, peer)
    return Result("items", mine / theirs, "<=1.5")
