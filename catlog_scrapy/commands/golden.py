"""`scrapy golden`."""

import argparse
import json
from pathlib import Path

from pydantic import ValidationError
from scrapy.exceptions import UsageError
from scrapy.utils.conf import closest_scrapy_cfg

from catlog_scrapy.commands.base import CatlogCommand
from catlog_scrapy.declarations import load_spiders
from catlog_scrapy.declarations.source import suggest
from catlog_scrapy.exceptions import NotFound, NotPossible
from catlog_scrapy.plurals import counted
from catlog_scrapy.testing.saved_pages import label, saved_pages


class Command(CatlogCommand):
    """Save the items that a spider makes from its saved pages.

    Writes only missing or empty files; with --force also files whose items have changed.
    """

    def syntax(self) -> str:
        return "[options] SPIDER"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        super().add_options(parser)
        parser.add_argument("--force", action="store_true", help="overwrite items that differ")

    def execute(self, args: list[str], opts: argparse.Namespace) -> None:
        if len(args) != 1:
            raise UsageError("write the name of one spider")
        name = args[0]
        loader = load_spiders(self.project_settings)
        if name not in loader.list():
            raise NotFound(f"unknown spider {name!r}; {suggest(name, loader.list())}")
        folder = Path(closest_scrapy_cfg()).parent / "tests" / "pages" / name
        pages = saved_pages(folder)
        if not pages:
            raise NotFound(f"{label(folder)} has no saved page; scrapy genoperation saves one")
        for page in pages:
            golden = page.golden() if page.golden_path.exists() else []
            try:
                items = page.items(loader.load(name))
            except (ValueError, ValidationError) as error:
                raise NotPossible(f"{label(page.path)}: {error}") from error
            if not items or items == golden:
                self._say(f"= {label(page.path)}: {counted(len(items), 'item')}, as before")
                continue
            if golden and not opts.force:
                raise NotPossible(
                    f"{label(page.golden_path)} holds other items; --force overwrites it"
                )
            page.write_golden(items)
            self._say(f"+ {label(page.golden_path)}: {counted(len(items), 'item')}; the first:")
            self._say(json.dumps(items[0], ensure_ascii=False))

    def _say(self, line: str) -> None:
        self.console.print(line, markup=False, soft_wrap=True)
