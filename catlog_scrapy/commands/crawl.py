"""`scrapy crawl`."""

import argparse
from typing import Any, ClassVar

from scrapy.commands import crawl
from scrapy.crawler import AsyncCrawlerProcess, CrawlerProcess
from sqlalchemy import Engine

from catlog_scrapy import addon
from catlog_scrapy.commands.base import CatlogCommand
from catlog_scrapy.declarations import load_spiders
from catlog_scrapy.declarations.source import suggest
from catlog_scrapy.exceptions import NotFound, NotPossible
from catlog_scrapy.store.queue import catalogs
from catlog_scrapy.store.queue.attempts import AttemptName
from catlog_scrapy.store.reading.status import operations_of_spider, scheme_operations
from catlog_scrapy.worker.catalog_run import run_catalog
from catlog_scrapy.worker.single_attempt import run_attempt

ASYNCIO_REACTOR = "twisted.internet.asyncioreactor.AsyncioSelectorReactor"


class Command(crawl.Command, CatlogCommand):
    """Run a spider by name; an operation's spider records a catalog.

    Exits with 1 if the load failed. A spider without an operation runs as in any Scrapy project.
    """

    requires_project = True
    requires_crawler_process = False
    default_settings: ClassVar[dict[str, Any]] = {}

    def process_options(self, args: list[str], opts: argparse.Namespace) -> None:
        with self.mistakes():  # Scrapy's reads -a, and then calls ours
            crawl.Command.process_options(self, args, opts)

    def prepare(self) -> None:
        """Prepare the project, unless it is without catlog: there the command is Scrapy's own."""
        if addon.is_enabled(self.project_settings):
            super().prepare()

    def run(self, args: list[str], opts: argparse.Namespace) -> None:
        if len(args) != 1 or not addon.is_enabled(self.project_settings):
            self._just_run(args, opts)
            return
        with self.mistakes(), self.database() as engine:
            if name := self.project_settings["CATLOG_ATTEMPT"]:
                attempt = AttemptName.parse(name)
                self.exitcode = run_attempt(engine, self.project_settings, self.console, attempt)
                return
            spiders = load_spiders(self.project_settings).list()
            if args[0] not in spiders:
                raise NotFound(f"unknown spider {args[0]!r}; {suggest(args[0], spiders)}")
            operations = operations_of_spider(engine, args[0])
            if operations:
                self.exitcode = self._load(engine, operations, opts.spargs)
                return
        self._just_run(args, opts)

    def execute(self, args: list[str], opts: argparse.Namespace) -> None:
        """Do nothing: `run` decides between Scrapy's command and a load."""

    def _load(self, engine: Engine, operations: list[Any], arguments: dict[str, str]) -> int:
        if len(operations) > 1:
            names = ", ".join(f"{o['provider']}/{o['scheme']}/{o['name']}" for o in operations)
            raise NotPossible(f"several operations run this spider; scrapy load one of {names}")
        found = operations[0]
        alone = len(scheme_operations(engine, found["provider"], found["scheme"])) == 1
        catalog_id = catalogs.create(
            engine,
            found["provider"],
            found["scheme"],
            operation=None if alone else found["name"],
            arguments=arguments,
            origin="crawl",
        )
        return run_catalog(
            engine, self.project_settings, self.console, catalog_id, retry=False, log_files=False
        )

    def _just_run(self, args: list[str], opts: argparse.Namespace) -> None:
        """Run the spider as Scrapy does, with the process that Scrapy's command line makes."""
        settings = self.project_settings
        asyncio_process = settings["TWISTED_REACTOR"] == ASYNCIO_REACTOR and not settings.getbool(
            "FORCE_CRAWLER_PROCESS"
        )
        if asyncio_process or not settings.getbool("TWISTED_REACTOR_ENABLED"):
            self.crawler_process = AsyncCrawlerProcess(settings)
        else:
            self.crawler_process = CrawlerProcess(settings)
        super().run(args, opts)
