"""Benchmark bulk: memory of a worker that reads whole shops."""

from benchmarks.common import Scale, Server
from benchmarks.own import scrapy
from benchmarks.report import Result, note
from catlog_scrapy.demo.server import DemoServer

SHOPS = ("hallmark_ornaments_com", "hookedonhallmark_com")


def run(server: Server, scale: Scale) -> list[Result]:
    """Compare peak memory (MiB) of a load of all years of a shop with a load of one year.

    Two shops with 17 000 products, by `scrapy load` in catlog's own project. The larger difference
    counts.
    """
    years = range(1974, 1975) if scale.small else range(1973, 2021)
    found = []
    with DemoServer(years=years) as shops:
        for shop in SHOPS[:1] if scale.small else SHOPS:
            with server.database() as engine:
                scrapy(server, engine, shops, "apply")
                scrapy(server, engine, shops, "load", f"{shop}/year_links")
                products_of = ("load", f"{shop}/products")
                one = scrapy(server, engine, shops, *products_of, "-a", "year=1974")
                everything = scrapy(server, engine, shops, *products_of)
            note(f"{shop}: {one:.0f} MiB for a year, {everything:.0f} MiB for all of {len(years)}")
            found.append((everything - one, everything, one))
    grown, everything, one = max(found)
    sample = f"{len(years)} years"
    return [Result("bulk", f"{everything:.0f} MiB", f"{one:.0f} MiB", grown, "<=64", sample)]
