"""Benchmark pages: cost of catlog for a crawl with a page for each product."""

from benchmarks.common import PROVIDER, Crawled, Scale, Server, crawl, declare
from benchmarks.measuring import in_turn
from benchmarks.report import Result, compare_wall, note_costs
from catlog_scrapy.demo.server import DemoServer


def run(server: Server, scale: Scale) -> list[Result]:
    """Compare the wall time of 15 years of an ornament shop with the spider without catlog.

    The same class in the same project and kind of process, once as an operation and once not; both
    store the images. This process serves the shop. The clock stops when all items are stored.
    """
    years, rounds = scale.count(15, 1), scale.times()
    with DemoServer() as shop:
        url = f"{shop.url}/hooked"
        words = ("-s", f"CATLOG_BASE_URL_{PROVIDER.upper()}={url}")
        peers_words = ("-a", f"base_url={url}", "-s", f"IMAGES_STORE={server.folder / 'images'}")

        def measure_catlog() -> Crawled:
            with server.database() as engine:
                declare(server, engine, "shop_pages")
                return crawl(server, engine, "shop_pages", years, *words)

        def measure_peer() -> Crawled:
            with server.database() as engine:
                return crawl(server, engine, "unwatched_pages", years, *peers_words)

        catlog, peer = (
            [one.crawl for one in side] for side in in_turn(rounds, measure_catlog, measure_peer)
        )
    note_costs(years, catlog=catlog, peer=peer)
    return [compare_wall("pages", catlog, peer, ">=0.9", years)]
