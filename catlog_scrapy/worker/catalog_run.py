"""Run of one catalog in this process, from waiting to its end state."""

import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

from rich.console import Console
from scrapy.settings import Settings
from sqlalchemy import Engine

from catlog_scrapy.config import worker_tags
from catlog_scrapy.console import print_text
from catlog_scrapy.store.reading.status import catalog_tree, find_catalog
from catlog_scrapy.store.reading.waiting import provider_limits, unclaimable_operations
from catlog_scrapy.worker.progress import Progress
from catlog_scrapy.worker.worker import Worker

END_STATES = ("loaded", "failed", "cancelled")


def run_catalog(
    engine: Engine,
    settings: Settings,
    console: Console,
    catalog_id: UUID,
    *,
    retry: bool = True,
    log_files: bool = True,
) -> int:
    """Run a catalog and its sub-catalogs to their end; return 0 if the catalog is loaded, else 1.

    Without *retry*, the first failed attempt ends the catalog.
    """
    reasons = WaitReasons(engine, console, worker_tags(settings))

    def finished(_: object) -> bool:
        catalog = find_catalog(engine, str(catalog_id))
        reasons.print_new(catalog_tree(engine, catalog_id))
        return catalog["state"] in END_STATES

    console.print(f"catalog {catalog_id}")
    # A process that replaces this one, because a crawl hung, continues this catalog.
    os.environ["CATLOG_RESUME"] = str(catalog_id)
    try:
        Worker(
            engine,
            settings,
            Progress(console),
            finished=finished,
            catalogs=lambda: catalog_tree(engine, catalog_id),
            retry=retry,
            log_files=log_files,
        ).run()
    finally:
        del os.environ["CATLOG_RESUME"]
    return print_result(console, find_catalog(engine, str(catalog_id)))


class WaitReasons:
    """Output about instances that an idle worker with *tags* waits for, each reason once."""

    def __init__(self, engine: Engine, console: Console, tags: Collection[str]) -> None:
        self.engine = engine
        self.console = console
        self.tags = tags
        self.printed: set[str] = set()
        self.last: set[str] = set()

    def print_new(self, catalogs: Sequence[UUID]) -> None:
        """Print why the instances of *catalogs* wait, unless that was printed before."""
        lines = set(unclaimable_operations(self.engine, catalogs, self.tags))
        # What the worker can claim is claimed between two looks.
        limits = set(provider_limits(self.engine, catalogs))
        lines |= limits & self.last
        self.last = limits
        for line in sorted(lines - self.printed):
            self.printed.add(line)
            print_text(self.console, line)


def print_result(console: Console, catalog: Mapping[str, Any]) -> int:
    """Print the end of a catalog in one line; return 0 if the catalog is loaded, else 1."""
    if catalog["state"] == "loaded":
        published = catalog["published"] or {}
        nothing = "sub-catalogs" if catalog["published"] is None else "nothing new"
        counts = ", ".join(f"{count} {name}" for name, count in published.items() if count)
        console.print(f"{catalog['scheme']}: [green]loaded[/] ({counts or nothing})")
        return 0
    console.print(f"{catalog['scheme']}: [red]{catalog['state']}[/]", end="")
    error = f": {catalog['error']}" if catalog["error"] else ""
    console.print(error, markup=False, soft_wrap=not console.is_terminal)
    if catalog["state"] not in END_STATES:
        console.print("The catalog stays queued; continue it with scrapy work --drain.")
    return 1
