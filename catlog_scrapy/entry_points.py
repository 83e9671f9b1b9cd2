"""What Scrapy finds of catlog when it lists its commands: names and a line each.

Scrapy loads every entry point whatever command was called, in any project of the environment. So
these import nothing; the commands themselves come when they are used.
"""

import argparse
from functools import cached_property
from importlib import import_module
from typing import Any, ClassVar

from scrapy.commands import ScrapyCommand
from scrapy.settings import Settings

SUMMARIES = {
    "apply": "Bring the declarations into the database",
    "backfill": "Queue catalogs for past due times",
    "cancel": "Stop a catalog, wherever it runs",
    "crawl": "Run a spider of the current project, by name; an operation records a catalog",
    "demo": "Show the whole of catlog on this machine, with local sources",
    "genoperation": "Generate an operation: provider entry, spider, saved page and failing test",
    "golden": "Write down what a spider makes of its saved pages, for their test",
    "key": "Make, list and revoke API keys of services",
    "load": "Load a catalog now, here",
    "migrate": "Make or upgrade catlog's schema in the database",
    "nodes": "Show the nodes of the fleet: slots, load, version, last poll, last error",
    "prune": "Delete results, rejects, versions and logs that are too old",
    "reset": "Delete what a scheme has loaded: the next load starts from nothing",
    "retry": "Queue a failed catalog again; what is done stays done",
    "schedule": "Make the catalogs that are due, reap, publish: the scheduler",
    "serve": "Serve what was loaded over HTTP, and take what is to be loaded",
    "sql": "Ask the database",
    "status": "Show catalogs, or one with its attempts, errors and logs",
    "up": "Run a scheduler, a node and a server on this machine",
    "user": "Add, list and change the users of the server",
    "work": "Run what is queued: a worker",
}


COMMANDS = "catlog_scrapy.commands"


class LazyCommand(ScrapyCommand):
    """Stands for the command of its name until something more than its summary is asked."""

    name: ClassVar[str]
    module: ClassVar[str]
    requires_crawler_process = False

    @cached_property
    def command(self) -> ScrapyCommand:
        """The command itself."""
        made: ScrapyCommand = import_module(self.module).Command()
        made.settings = self.settings
        return made

    @property
    def default_settings(self) -> dict[str, Any]:  # type: ignore[override]
        """Those of the command."""
        return self.command.default_settings

    @property
    def exitcode(self) -> int:  # type: ignore[override]
        """That of the command."""
        return self.command.exitcode

    def syntax(self) -> str:
        return self.command.syntax()

    def short_desc(self) -> str:
        return SUMMARIES[self.name]

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        self._hand_over()
        self.command.add_options(parser)

    def process_options(self, args: list[str], opts: argparse.Namespace) -> None:
        self._hand_over()
        self.command.process_options(args, opts)

    def run(self, args: list[str], opts: argparse.Namespace) -> None:
        self.command.run(args, opts)

    def _hand_over(self) -> None:
        # Scrapy sets them after it has asked for the default settings.
        settings: Settings | None = self.settings
        self.command.settings = settings


def _lazy(name: str) -> type[LazyCommand]:
    return type(name.capitalize(), (LazyCommand,), {"name": name, "module": f"{COMMANDS}.{name}"})


Apply = _lazy("apply")
Backfill = _lazy("backfill")
Cancel = _lazy("cancel")
Crawl = _lazy("crawl")
Genoperation = _lazy("genoperation")
Golden = _lazy("golden")
Key = _lazy("key")
Load = _lazy("load")
Migrate = _lazy("migrate")
Nodes = _lazy("nodes")
Prune = _lazy("prune")
Reset = _lazy("reset")
Retry = _lazy("retry")
Schedule = _lazy("schedule")
Serve = _lazy("serve")
Sql = _lazy("sql")
Status = _lazy("status")
Up = _lazy("up")
User = _lazy("user")
Work = _lazy("work")
