"""Checks of generated files before they are written."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scrapy import Spider
from scrapy.settings import BaseSettings
from scrapy.spiderloader import SpiderLoader, SpiderLoaderProtocol

from catlog_scrapy.declarations.checking import check
from catlog_scrapy.declarations.reading import read_providers, read_views
from catlog_scrapy.exceptions import NotPossible
from catlog_scrapy.records.lookup import make_record_type
from catlog_scrapy.scaffold.files import KEY_FIELD, Generator, declares_record
from catlog_scrapy.scaffold.target import ProjectLayout, class_name_of, raise_mistakes
from catlog_scrapy.scaffold.writing import write
from catlog_scrapy.testing.saved_pages import label


def check_files(
    settings: BaseSettings,
    loader: SpiderLoaderProtocol,
    generator: Generator,
    files: Mapping[Path, str],
    *,
    force: bool,
) -> None:
    """Check *files* before they are written.

    Raises NotPossible if a file exists, unless *force* is given, and DeclarationError if
    `scrapy apply` would refuse the provider's file.
    """
    provider = generator.target.file
    existing = [path for path in files if path.exists() and path != provider]
    if existing and not force:
        raise NotPossible(f"{', '.join(map(label, existing))} exists; use --force to overwrite.")
    if not force and generator.target.has_scheme(generator.name):
        raise NotPossible(
            f'the provider "{generator.target.provider}" has a scheme "{generator.name}" already;'
            " choose another name, or use --force to keep the scheme."
        )
    if provider not in files:
        return
    made: dict[str, Any] = {"name": generator.name}
    if declares_record(files[generator.spider_file]):
        made["record"] = make_record_type(generator.name, [KEY_FIELD])
    spidercls = type(class_name_of(generator.name), (Spider,), made)
    with tempfile.TemporaryDirectory() as temporary:
        # The lines of mistakes name the file and its folder.
        folder = Path(temporary, provider.parent.name)
        folder.mkdir()
        for path in provider.parent.glob("*.toml"):
            (folder / path.name).write_bytes(path.read_bytes())
        write(folder / provider.name, files[provider])
        declared, mistakes = read_providers(folder)
    views, view_mistakes = read_views(Path(settings["CATLOG_VIEWS"]))
    raise_mistakes(
        mistakes
        + view_mistakes
        + check(declared, _WithNewSpider(loader, spidercls), views).mistakes
    )


def check_spider(loader: SpiderLoaderProtocol, name: str, layout: ProjectLayout) -> None:
    """Raise NotPossible if another module has a spider *name*."""
    if name in loader.list():
        module = loader.load(name).__module__
        if module != f"{layout.spiders_module}.{name}":
            raise NotPossible(f'{module} has a spider "{name}" already; choose another name.')


class _WithNewSpider(SpiderLoader):
    """Spiders of another loader, and a spider that is not written yet."""

    def __init__(self, others: SpiderLoaderProtocol, spidercls: type[Spider]) -> None:
        self.others = others
        self.spidercls = spidercls

    def list(self) -> list[str]:
        return [*self.others.list(), self.spidercls.name]

    def load(self, spider_name: str) -> type[Spider]:
        if spider_name == self.spidercls.name:
            return self.spidercls
        return self.others.load(spider_name)
