"""Benchmark items: cost of validation and storage for single items."""

from benchmarks.common import STOCK_SETTINGS, Crawled, Scale, Server, crawl, declare
from benchmarks.measuring import in_turn
from benchmarks.report import Result, compare_cpu, note_costs


def run(server: Server, scale: Scale) -> list[Result]:
    """Compare the CPU of items from a callback, stored, with Scrapy's null pipeline and FEEDS.

    The same class in the same kind of process: as an operation; by Scrapy without catlog, with one
    pipeline that returns the item; and by Scrapy with a feed in JSON lines. Scrapy's own work for
    an item is in all times. The clock stops when all items are stored.
    """
    count, rounds = scale.count(20_000, 100), scale.times()

    def measure_catlog() -> Crawled:
        with server.database() as engine:
            declare(server, engine, "one_by_one")
            return crawl(server, engine, "one_by_one", count)

    def measure_null() -> Crawled:
        with server.database() as engine:
            return crawl(server, engine, "with_null_pipeline", count, settings=STOCK_SETTINGS)

    def measure_feeds() -> Crawled:
        feed = server.folder / f"feed-{server.number()}.jsonl"
        with server.database() as engine:
            words = ("-o", f"{feed}:jsonlines")
            return crawl(server, engine, "one_by_one", count, *words, settings=STOCK_SETTINGS)

    crawled = in_turn(rounds, measure_catlog, measure_null, measure_feeds)
    catlog, null, feeds = ([one.crawl for one in side] for side in crawled)
    note_costs(count, catlog=catlog, null=null, feeds=feeds)
    return [
        compare_cpu("items", catlog, null, "<=0.6", count),
        compare_cpu("items_feeds", catlog, feeds, "<=0.4", count),
    ]
