"""`scrapy demo`"""

import argparse
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.table import Table
from sqlalchemy import Engine, text

from catlog_scrapy.command import CatlogCommand
from catlog_scrapy.commands.sql import shown
from catlog_scrapy.declarations import apply
from catlog_scrapy.demo.ornaments import DEMO_YEARS
from catlog_scrapy.demo.server import DEFAULT_PORT, SOURCES, DemoServer
from catlog_scrapy.demo.source import YEARS
from catlog_scrapy.exceptions import NotPossible
from catlog_scrapy.running.progress import Progress
from catlog_scrapy.running.worker import Worker
from catlog_scrapy.store.catalogs import create
from catlog_scrapy.store.schedules import bring_forward, make_due
from catlog_scrapy.store.status import has_open_work, latest_catalogs

SCHEMES = (
    ("tatneft", "stations"),
    ("tatneft", "prices"),
    ("tatneft", "references"),
    ("hallmark_ornaments_com", "year_links"),
    ("hallmark_ornaments_com", "products"),
)
# Seconds that the slow source takes here, where the original takes four.
FUEL_DELAY = 1.0

QUERIES = {
    "Fuel stations, united from both sources": """
        select id, number, address, jsonb_array_length(image_urls) as images, fuels, services
        from fuel_stations order by id""",
    "Products by vendor": "select vendor, count(distinct(sku)) from products group by vendor;",
    "Products by year": """
        select release_year, count(distinct(sku)) from products
        where vendor = 'hallmark_ornaments_com' group by release_year;""",
    "The newest products": """
        select name, price, release_year, created_at from products
        order by created_at desc limit 5;""",
    "What changed between the two loads": """
        select change, count(*), min(name) as for_example
        from products_history where valid_to = (select max(valid_to) from products_history)
        group by change union all
        select 'created', count(*), min(name) from products
        where created_at = (select max(valid_to) from products_history)
        order by 1""",
    "Prices that changed": """
        select former.name, former.price as was, now.price as is, former.valid_to as since
        from products_history former join products_history now
            using (vendor, sku, name, link)
        where former.valid_to = now.valid_from and former.change = 'changed'
        order by since desc, name limit 5""",
}


class Command(CatlogCommand):
    """Applies the declarations, runs what is due, changes the sources, loads again, asks."""

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        super().add_options(parser)
        parser.add_argument("--full", action="store_true", help="all 48 years of the shop")
        parser.add_argument(
            "--serve", action="store_true", help="only serve the local sources, until Ctrl-C"
        )

    def execute(self, args: list[str], opts: argparse.Namespace) -> int:
        if opts.serve:
            return self._serve()
        if self.project_settings["BOT_NAME"] != "catlog_scrapy":
            raise NotPossible(
                "the demo's sources belong to catlog's own project; run it in a checkout of catlog."
            )
        started = time.monotonic()
        with self.database() as engine:
            for change in apply(engine, self.project_settings):
                self.console.print(str(change), markup=False)
            years = YEARS if opts.full or _holds_all_years(engine) else DEMO_YEARS
            with self._sources(years) as sources:
                self._run(engine, sources)
            self._show(engine)
        self.console.print(f"\nThat took {time.monotonic() - started:.0f} s. Now try:")
        self.console.print('  scrapy sql "select * from products_history limit 5"\n  scrapy status')
        return 0

    def _serve(self) -> int:
        with self._sources(YEARS, port=DEFAULT_PORT) as sources:
            served = ", ".join(f"{sources.url}/{name}" for name in SOURCES)
            self.console.print(f"serving {served}; Ctrl-C ends")
            threading.Event().wait()
        return 0

    @contextmanager
    def _sources(self, years: Any, port: int | None = None) -> Iterator[DemoServer]:
        """The local sources, on the port that the declarations name, or on a free one."""
        try:
            server = DemoServer(port or DEFAULT_PORT, fuel_delay=FUEL_DELAY, years=years).start()
        except OSError as error:
            if port:
                raise NotPossible(
                    f"port {port} is taken ({error.strerror}); are the sources served already?"
                ) from error
            server = DemoServer(fuel_delay=FUEL_DELAY, years=years).start()
        for source in SOURCES.values():
            name = f"CATLOG_BASE_URL_{source.provider.upper()}"
            self.project_settings.set(name, f"{server.url}/{source.name}", "cmdline")
        try:
            yield server
        finally:
            server.stop()

    def _run(self, engine: Engine, sources: DemoServer) -> None:
        """Two loads of all schemes in one worker; between them the sources change."""
        self.console.rule("First load: the schedules are due")
        bring_forward(engine, sorted({provider for provider, _ in SCHEMES}))
        make_due(engine)
        second = [False]

        def finished(_: object) -> bool:
            if has_open_work(engine):
                return False
            if second[0]:
                return True
            second[0] = True
            self.console.rule("Prices change, a product is new, one is gone: second load")
            sources.change()
            for provider, scheme in SCHEMES:
                create(engine, provider, scheme)
            return False

        Worker(engine, self.project_settings, Progress(self.console), finished=finished).run()
        failed = [
            c for c in latest_catalogs(engine, limit=2 * len(SCHEMES)) if c["state"] == "failed"
        ]
        if failed:
            raise NotPossible(
                f"{failed[0]['scheme']} did not load: {failed[0]['error']};"
                f" see scrapy status {str(failed[0]['id'])[:8]}"
            )

    def _show(self, engine: Engine) -> None:
        self.console.rule("What is loaded")
        table = Table("catalog", "state", "created", "changed", "removed", "unchanged", box=None)
        for catalog in reversed(latest_catalogs(engine, limit=2 * len(SCHEMES))):
            counts = catalog["published"] or {}
            unchanged = (
                counts.get("seen", 0)
                - counts.get("duplicates", 0)
                - sum(counts.get(change, 0) for change in ("created", "changed", "revived"))
            )
            table.add_row(
                catalog["scheme"],
                catalog["state"],
                *(str(counts.get(change, 0)) for change in ("created", "changed", "removed")),
                str(unchanged),
            )
        self.console.print(table)
        for title, query in QUERIES.items():
            self.console.rule(title)
            self._ask(engine, query)

    def _ask(self, engine: Engine, query: str) -> None:
        with engine.connect() as connection:
            answer = connection.execute(text(query))
            table = Table(*answer.keys(), box=None)
            for row in answer:
                table.add_row(*map(shown, row))
        self.console.print(table, markup=False)


def _holds_all_years(engine: Engine) -> bool:
    """Whether a full demo ran before: a smaller shop would look like one that lost its years."""
    with engine.connect() as connection:
        count = connection.scalar(text("select count(distinct year) from year_links"))
    return (count or 0) > len(DEMO_YEARS)
