"""`scrapy demo`: load the example sources."""

import argparse
import datetime as dt
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.table import Table
from sqlalchemy import Engine, text

from catlog_scrapy.commands.base import CatlogCommand
from catlog_scrapy.commands.sql_output import shown
from catlog_scrapy.declarations import apply
from catlog_scrapy.demo import learning, school
from catlog_scrapy.demo.ornaments import DEMO_YEARS
from catlog_scrapy.demo.server import DEFAULT_PORT, SOURCES, DemoServer
from catlog_scrapy.demo.shows import SHOWS, Show
from catlog_scrapy.demo.source import YEARS
from catlog_scrapy.exceptions import ConfigurationError, NotPossible
from catlog_scrapy.redaction import secret_variable
from catlog_scrapy.store.queue.catalogs import create
from catlog_scrapy.store.reading.status import has_open_work, latest_catalogs
from catlog_scrapy.worker.progress import Progress
from catlog_scrapy.worker.worker import Worker

# Delay of the slow source. The original takes four seconds.
FUEL_DELAY_S = 1.0
# Two loads of each scheme.
LOADS = 2 * sum(len(show.schemes) for show in SHOWS)

# Counts of a publish, in the order of the columns.
COUNTS = ("received", "created", "changed", "removed")

# Credentials of the sources that need a login.
SECRETS = {
    ("learning", "client"): learning.CLIENT,
    ("learning", "client_key"): learning.CLIENT_KEY,
    ("school", "user"): school.USER,
    ("school", "password"): school.PASSWORD,
}


class Command(CatlogCommand):
    """Load the example sources, change them, and load them again."""

    name = "demo"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's options."""
        super().add_options(parser)
        parser.add_argument("--full", action="store_true", help="load all 48 years of the shops")
        parser.add_argument(
            "--serve", action="store_true", help="only serve the local sources, until Ctrl-C"
        )

    def execute(self, args: list[str], opts: argparse.Namespace) -> int:
        """Load all sources twice and print the results, or only serve the sources."""
        if opts.serve:
            return self._serve()
        if self.project_settings["BOT_NAME"] != "catlog_scrapy":
            raise NotPossible(
                "the demo needs catlog's own project; run it in a checkout of catlog."
            )
        started = time.monotonic()
        with self.database() as engine:
            for change in apply(engine, self.project_settings):
                self.console.print(str(change), markup=False)
            years = YEARS if opts.full or _holds_all_years(engine) else DEMO_YEARS
            shows = [show for show in SHOWS if not show.needs_browser or self._has_browser()]
            with self._sources(years) as sources:
                self._run(engine, sources, [scheme for show in shows for scheme in show.schemes])
            for show in shows:
                self._show(engine, show)
        self.console.print(f"\nThe demo took {time.monotonic() - started:.0f} s. Try next:")
        self.console.print('  scrapy sql "select * from products_history limit 5"\n  scrapy status')
        return 0

    def _serve(self) -> int:
        with self._sources(YEARS, port=DEFAULT_PORT) as sources:
            served = ", ".join(f"{sources.url}/{name}" for name in SOURCES)
            self.console.print(f"serving {served}; stop with Ctrl-C")
            threading.Event().wait()
        return 0

    @contextmanager
    def _sources(self, years: Any, port: int | None = None) -> Iterator[DemoServer]:
        """Serve the local sources, on the port of the declarations or on a free port."""
        try:
            server = DemoServer(port or DEFAULT_PORT, fuel_delay=FUEL_DELAY_S, years=years).start()
        except OSError as error:
            if port:
                raise NotPossible(
                    f"port {port} cannot be used ({error.strerror}); stop the server that uses it,"
                    " or serve the sources with python -m catlog_scrapy.demo.server --port N and"
                    " set CATLOG_BASE_URL_<PROVIDER> for each provider"
                ) from error
            server = DemoServer(fuel_delay=FUEL_DELAY_S, years=years).start()
        for source in SOURCES.values():
            name = f"CATLOG_BASE_URL_{source.provider.upper()}"
            self.project_settings.set(name, f"{server.url}/{source.name}", "cmdline")
        try:
            yield server
        finally:
            server.stop()

    def _has_browser(self) -> bool:
        # Imported here: the import of Playwright is slow.
        from playwright.sync_api import sync_playwright

        from catlog_scrapy.browser.shared import find_browser

        with sync_playwright() as playwright:
            try:
                find_browser(playwright.chromium.executable_path)
            except ConfigurationError as error:
                self.console.print(f"The groceries are left out: {error}", markup=False)
                return False
        return True

    def _run(self, engine: Engine, sources: DemoServer, schemes: list[tuple[str, str]]) -> None:
        """Load all schemes twice in one worker, and change the sources between the loads."""
        for (provider, name), value in SECRETS.items():
            os.environ[secret_variable(provider, name)] = value
        # Printed by the console of the live table, which then stays below the output.
        progress = Progress(self.console)
        progress.console.rule("First load")
        self._create(engine, schemes)
        is_second = False

        def finished(_: object) -> bool:
            nonlocal is_second
            if has_open_work(engine):
                return False
            if is_second:
                return True
            is_second = True
            progress.console.rule("Second load: prices changed, records were added and removed")
            sources.change()
            self._create(engine, schemes)
            return False

        Worker(engine, self.project_settings, progress, finished=finished).run()
        failed = [c for c in latest_catalogs(engine, limit=LOADS) if c["state"] == "failed"]
        if failed:
            raise NotPossible(
                f"{failed[0]['scheme']} failed: {failed[0]['error']};"
                f" see scrapy status {str(failed[0]['id'])[:8]}"
            )

    def _create(self, engine: Engine, schemes: list[tuple[str, str]]) -> None:
        for provider, scheme in schemes:
            create(engine, provider, scheme)

    def _show(self, engine: Engine, show: Show) -> None:
        self.console.print()
        self.console.rule(f"[bold]{show.title}")
        table = Table("catalog", "state", *COUNTS, box=None)
        names = {f"{provider}/{scheme}" for provider, scheme in show.schemes}
        for catalog in reversed(latest_catalogs(engine, limit=LOADS)):
            if catalog["scheme"] in names:
                counts = catalog["published"] or {}
                values = (str(counts.get(count, 0)) for count in COUNTS)
                table.add_row(catalog["scheme"], catalog["state"], *values)
        self.console.print(table)
        for title, query in show.queries.items():
            self.console.print(f"\n[italic]{title}")
            self._print_query(engine, query)

    def _print_query(self, engine: Engine, query: str) -> None:
        with engine.connect() as connection:
            rows = connection.execute(text(query))
            table = Table(*rows.keys(), box=None)
            for row in rows:
                table.add_row(*map(_cell, row))
        self.console.print(table, markup=False)


def _cell(value: Any) -> str:
    """Format a value for a narrow table: instants without fractions of a second."""
    return f"{value:%Y-%m-%d %H:%M:%S}" if isinstance(value, dt.datetime) else shown(value)


def _holds_all_years(engine: Engine) -> bool:
    """Return whether a full demo ran before. Fewer years would remove the products of the rest."""
    with engine.connect() as connection:
        count = connection.scalar(text("select count(distinct year) from year_links"))
    return (count or 0) > len(DEMO_YEARS)
