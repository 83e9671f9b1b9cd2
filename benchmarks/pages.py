"""Benchmark pages: cost of catlog for a crawl with a page for each product."""

from benchmarks.common import Result, Server, alternate, crawl, declare
from catlog_scrapy.demo.server import DemoServer


def run(server: Server, small: bool) -> Result:
    """Compare pages per second of 15 years of an ornament shop with the spider without catlog.

    The same class in the same project and kind of process, once as an operation and once not; both
    store the images. This process serves the shop. The clock stops when all items are stored.
    """
    years = 1 if small else 15
    with DemoServer() as shop:
        words = ("-a", f"base_url={shop.url}/hooked")
        peers_words = (*words, "-s", f"IMAGES_STORE={server.folder / 'images'}")

        def measure_catlog() -> float:
            with server.database() as engine:
                declare(server, engine, "shop_pages")
                return crawl(server, engine, "shop_pages", years, *words).seconds

        def measure_peer() -> float:
            with server.database() as engine:
                return crawl(server, engine, "unwatched_pages", years, *peers_words).seconds

        catlog, peer = alternate(1 if small else 5, measure_catlog, measure_peer)
    return Result("pages", peer / catlog, ">=0.9")
