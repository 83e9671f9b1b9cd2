"""`scrapy genoperation`."""

import argparse
from pathlib import Path

import scrapy
from scrapy.commands import genspider
from scrapy.commands.edit import _edit_file
from scrapy.exceptions import UsageError
from scrapy.http import Response
from scrapy.responsetypes import responsetypes

from catlog_scrapy.commands.base import CatlogCommand
from catlog_scrapy.declarations import load_spiders
from catlog_scrapy.exceptions import NotFound, NotPossible
from catlog_scrapy.scaffold import (
    SUFFIXES,
    TEMPLATES,
    Generator,
    ProjectLayout,
    check_files,
    check_name,
    check_spider,
    find_target,
    kind_of,
    text_of,
    write_all,
)
from catlog_scrapy.scaffold.fetching import fetch
from catlog_scrapy.testing.saved_pages import label


class Command(genspider.Command, CatlogCommand):
    """Generate an operation: declaration, spider, saved page, test.

    The test fails and says what to do next. All options of Scrapy's genspider work.
    """

    def syntax(self) -> str:
        return "[options] NAME URL"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        super().add_options(parser)
        parser.set_defaults(template=None)
        parser.add_argument(
            "-p",
            "--provider",
            metavar="PROVIDER",
            help="provider of the page, by default the provider with that base_url, else the host",
        )
        parser.add_argument(
            "--kind", choices=tuple(SUFFIXES), help="type of the page, by default its Content-Type"
        )
        parser.add_argument(
            "--page", metavar="FILE", help="read the page from this file instead of fetching it"
        )

    def run(self, args: list[str], opts: argparse.Namespace) -> None:
        if opts.list or opts.dump:
            with self.mistakes():
                genspider.Command.run(self, args, opts)
        else:
            CatlogCommand.run(self, args, opts)

    def execute(self, args: list[str], opts: argparse.Namespace) -> int:
        if len(args) != 2:
            raise UsageError("write a NAME and a URL")
        settings, name = self.project_settings, args[0]
        check_name(name, settings["BOT_NAME"])
        layout = ProjectLayout.of(settings)
        loader = load_spiders(settings)
        check_spider(loader, name, layout)
        target = find_target(settings, args[1], opts.provider)
        page = self._page(target.url, opts.page)
        kind = opts.kind or kind_of(page)
        if kind is None and opts.template is None:
            raise NotPossible(
                f"{page.url} is neither HTML nor JSON; name its type with --kind, or a template"
                " with -t"
            )
        template = self._find_template(opts.template or str(kind)).read_text(encoding="utf-8")
        generator = Generator(name, target, layout, kind)
        files = generator.files(template, text_of(page))
        check_files(settings, loader, generator, files, force=opts.force)
        write_all(files)
        for path in files:
            self.console.print(f"+ {label(path)}", markup=False, soft_wrap=True)
        self.console.print(
            f"fill in {label(generator.spider_file)}, then: python -m pytest"
            f" {label(layout.tests / f'test_{name}.py')}",
            markup=False,
            soft_wrap=True,
        )
        return _edit_file(settings["EDITOR"], generator.spider_file) if opts.edit else 0

    def _page(self, url: str, file: str | None) -> Response:
        """Read the page from *file*, or fetch it. Raises NotPossible."""
        if file is None:
            return fetch(self.project_settings, url)
        try:
            body = Path(file).read_bytes()
        except OSError as error:
            raise NotPossible(
                f"{file} cannot be read ({error.strerror}); name a readable file."
            ) from error
        return responsetypes.from_args(filename=file, body=body)(url, body=body)

    def _folders(self) -> list[Path]:
        """Return the folders of templates: the project's, catlog's, Scrapy's."""
        own = self.project_settings["TEMPLATES_DIR"]
        roots = [*([Path(own)] if own else []), TEMPLATES, Path(scrapy.__path__[0], "templates")]
        return [root / "spiders" for root in roots]

    def _find_template(self, template: str) -> Path:
        name = template if template.endswith(".tmpl") else f"{template}.tmpl"
        for file in (Path(name), *(folder / name for folder in self._folders())):
            if file.is_file():
                return file
        raise NotFound(f'unknown template "{template}"; scrapy {self.name} --list shows all')

    def _list_templates(self) -> None:
        found = {file.stem for folder in self._folders() for file in folder.glob("*.tmpl")}
        self.console.print("\n".join(sorted(found)), markup=False)
