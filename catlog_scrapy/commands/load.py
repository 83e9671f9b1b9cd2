"""`scrapy load`."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from rich.table import Table
from scrapy.exceptions import UsageError
from scrapy.utils.conf import arglist_to_dict
from sqlalchemy import Engine

from catlog_scrapy.commands.base import CatlogCommand
from catlog_scrapy.declarations import load_spiders
from catlog_scrapy.declarations.capabilities import read_capabilities
from catlog_scrapy.declarations.spiders import misplaced_arguments
from catlog_scrapy.exceptions import NotPossible
from catlog_scrapy.project import warn_of_unmatched_variables
from catlog_scrapy.store.queue import catalogs, starting
from catlog_scrapy.store.reading.status import scheme_operations
from catlog_scrapy.worker.catalog_run import run_catalog


class Command(CatlogCommand):
    """Load a catalog now, in this process.

    Exits with 0 only if the catalog is loaded, otherwise with 1.
    """

    def syntax(self) -> str:
        return "[options] PROVIDER/SCHEME[/OPERATION]"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        super().add_options(parser)
        parser.add_argument(
            "-a",
            dest="arguments",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="spider argument, or a field that selects parts; may be repeated",
        )
        parser.add_argument(
            "--once", action="store_true", help="end the load at the first failed attempt"
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="print what would run, without running it"
        )

    def execute(self, args: list[str], opts: argparse.Namespace) -> int:
        if len(args) != 1:
            raise UsageError("write one PROVIDER/SCHEME[/OPERATION]")
        provider, _, rest = args[0].partition("/")
        scheme, _, operation = rest.partition("/")
        if not provider or not scheme:
            raise UsageError(f"{args[0]!r} is not a PROVIDER/SCHEME[/OPERATION]")
        try:
            arguments = arglist_to_dict(opts.arguments)
        except ValueError:
            raise UsageError("write arguments as -a NAME=VALUE") from None
        with self.database() as engine:
            if resumed := self.project_settings["CATLOG_RESUME"]:
                return self._run(engine, UUID(resumed), opts)
            warn_of_unmatched_variables(engine, self.project_settings)
            operations = [
                found
                for found in scheme_operations(engine, provider, scheme)
                if not operation or found["name"] == operation
            ]
            if operations:
                capabilities = read_capabilities(
                    self.project_settings, load_spiders(self.project_settings)
                )
                capabilities.require_known(f"{provider}/{scheme}", operations, arguments)
                self._require_allowed_urls(provider, operations, arguments)
            if opts.dry_run:
                return self._plan(engine, provider, scheme, operation, arguments)
            catalog_id = catalogs.create(
                engine, provider, scheme, operation=operation or None, arguments=arguments
            )
            return self._run(engine, catalog_id, opts)

    def _run(self, engine: Engine, catalog_id: UUID, opts: argparse.Namespace) -> int:
        return run_catalog(
            engine, self.project_settings, self.console, catalog_id, retry=not opts.once
        )

    def _require_allowed_urls(
        self, provider: str, operations: Sequence[Mapping[str, Any]], arguments: Mapping[str, str]
    ) -> None:
        """Raise NotPossible for an argument that points where the operations may not read."""
        mistakes = misplaced_arguments(self.project_settings, provider, operations, arguments)
        for name, mistake in mistakes.items():
            raise NotPossible(f"-a {name}: {mistake}")

    def _plan(
        self,
        engine: Engine,
        provider: str,
        scheme: str,
        operation: str,
        arguments: dict[str, str],
    ) -> int:
        table = Table(box=None, pad_edge=False)
        for name in ("operation", "part", "arguments"):
            table.add_column(name, overflow="fold")
        for instance in starting.plan(engine, provider, scheme, operation or None, arguments):
            written = " ".join(f"{name}={value}" for name, value in instance["arguments"].items())
            table.add_row(instance["operation"], instance["part"], written)
        self.console.print(table, markup=False)
        return 0
