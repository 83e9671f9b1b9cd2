"""Whether the memory of a worker grows with the shops that it reads."""

import os
import subprocess
import sys

from sqlalchemy import Engine

from benchmarks.common import ROOT, Result, Server, note
from catlog_scrapy.demo.server import SOURCES, DemoServer

SHOPS = {"hallmark_ornaments_com": 10270, "hookedonhallmark_com": 6689}


def run(server: Server, small: bool) -> Result:
    """MiB that the peak of a process with all 17 000 products of two shops is above that of a year.

    Both by `scrapy load` in catlog's own project; of the shops, the worse counts.
    """
    years = range(1973, 1975) if small else range(1973, 2021)
    grown = []
    with DemoServer(years=years) as shops:
        for shop, products in SHOPS.items():
            with server.database() as engine:
                scrapy(server, engine, shops, "apply")
                scrapy(server, engine, shops, "load", f"{shop}/year_links")
                products_of = ("load", f"{shop}/products")
                one = scrapy(server, engine, shops, *products_of, "-a", "year=1974")
                everything = scrapy(server, engine, shops, *products_of)
            note(f"{shop}: {one:.0f} MiB for a year, {everything:.0f} MiB for all {products}")
            grown.append(everything - one)
    return Result("bulk", max(grown), "<=64")


def scrapy(server: Server, engine: Engine, shops: DemoServer, *words: str) -> float:
    """`scrapy` *words* in catlog's own project; its peak in MiB. Raises RuntimeError."""
    environment = os.environ | {
        "CATLOG_DATABASE_URL": engine.url.render_as_string(hide_password=False),
        "CATLOG_HOME": str(server.folder / "home-of-the-shops"),
    }
    for source in SOURCES.values():
        name = f"CATLOG_BASE_URL_{source.provider.upper()}"
        environment[name] = f"{shops.url}/{source.name}"
    log = server.folder / "load.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "scrapy", *words],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"scrapy {' '.join(words)} failed:\n{log.read_text()[-4000:]}")
    return used.ru_maxrss / 1024
