"""What catlog costs a crawl of many pages, where every product has one of its own."""

from benchmarks.common import Result, Server, alternate, crawl, declare
from catlog_scrapy.demo.server import DemoServer


def run(server: Server, small: bool) -> Result:
    """Pages a second of an ornament shop's first 15 years, against the same spider by itself.

    The same class in the same project and kind of process, once as an operation and once not; both
    keep the images. The shop is served by this process. The clock stops when all is stored.
    """
    years = 1 if small else 15
    with DemoServer() as shop:
        words = ("-a", f"base_url={shop.url}/hooked")
        peers_words = (*words, "-s", f"IMAGES_STORE={server.folder / 'images'}")

        def ours() -> float:
            with server.database() as engine:
                declare(server, engine, "shop_pages")
                return crawl(server, engine, "shop_pages", years, *words).seconds

        def peer() -> float:
            with server.database() as engine:
                return crawl(server, engine, "unwatched_pages", years, *peers_words).seconds

        mine, theirs = alternate(1 if small else 5, ours, peer)
    return Result("pages", theirs / mine, ">=0.9")
