"""Conventions of spiders, their declarations and their saved pages: a line for each violation."""

import inspect
import re
from collections.abc import Collection, Iterable, Iterator
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

from pydantic import ValidationError
from scrapy import Spider

from catlog_scrapy.declarations import spider_arguments
from catlog_scrapy.declarations.model import OperationTable, ProviderFile
from catlog_scrapy.demo.server import DEFAULT_PORT, SOURCES
from catlog_scrapy.records.lookup import is_record_type, record_types
from catlog_scrapy.records.storable import NotStorable
from catlog_scrapy.testing.saved_pages import SavedPage

SENTENCE = re.compile(r"[\w)\]`'\"][.!?:](?=\s|$)")


def modules_of(package: ModuleType) -> list[str]:
    """Return the names of a package's modules."""
    return [module.name for module in iter_modules(package.__path__)]


def spiders_of(module: str) -> list[type[Spider]]:
    """Return the spiders that a module defines, without imported spiders."""
    return [
        value
        for _, value in inspect.getmembers(import_module(module), inspect.isclass)
        if issubclass(value, Spider) and value.__module__ == module
    ]


def operations_of(provider: ProviderFile) -> list[OperationTable]:
    """Return all operations of a provider that run spiders."""
    operations: list[OperationTable] = []
    for scheme in provider.scheme:
        operations += [OperationTable(name=name) for name in scheme.operations] + scheme.operation
    return [operation for operation in operations if operation.executor == "scrapy"]


def of_spider(
    spidercls: type[Spider], file: str, operations: Iterable[OperationTable]
) -> Iterator[str]:
    """Yield violations of a spider in *file*.py, and of the *operations* that run it."""
    if spidercls.name != file:
        yield f'it is called "{spidercls.name}", its file "{file}"'
    if spidercls.__name__ != file.title().replace("_", ""):
        yield f"its class is called {spidercls.__name__}"
    if not record_types(spidercls) or not all(map(is_record_type, record_types(spidercls))):
        yield "it has no record type"
    if getattr(spidercls, "base_url", None) != "":
        yield 'its base_url is not ""'
    facts = vars(spidercls).get("__doc__") or ""
    if len(SENTENCE.findall(facts)) < 2 or "FILL IN" in facts:
        yield "its docstring does not tell the source's facts, in two sentences or more"
    mine = [operation for operation in operations if operation.spider_name == spidercls.name]
    if not mine:
        yield "no provider file has it"
    annotated = {name for cls in spidercls.__mro__ for name in inspect.get_annotations(cls)}
    for name in {name for operation in mine for name in operation.arguments}:
        if name not in spider_arguments(spidercls):
            yield f'it does not take the argument "{name}"'
        elif name not in annotated and not re.search(rf"\b{name}\b", facts):
            yield f'neither docstring nor annotation says what the argument "{name}" is'


def of_pages(spidercls: type[Spider], pages: Collection[SavedPage]) -> Iterator[str]:
    """Yield violations of a spider's saved *pages* and of their golden results."""
    golden = [page for page in pages if page.golden_path.exists()]
    if not golden:
        yield "it has no saved page with a golden result"
    for page in golden:
        try:
            page.check(spidercls)
        except (AssertionError, ValidationError, NotStorable, ValueError) as error:
            yield f"{page.path.name}: {error}"


def of_provider(provider: ProviderFile, file: str, spiders: Collection[str]) -> Iterator[str]:
    """Yield violations of the provider in *file*.toml."""
    table = provider.provider
    if table.name != file:
        yield f'it is called "{table.name}", its file "{file}"'
    if not table.title:
        yield "it has no title"
    served = [
        f"http://127.0.0.1:{DEFAULT_PORT}/{source.name}"
        for source in SOURCES.values()
        if source.provider == table.name
    ]
    if table.base_url not in served:
        yield f"its base_url is {table.base_url}; the demo serves {served}"
    if not provider.schedule:
        yield "it has no schedule"
    for operation in operations_of(provider):
        if operation.spider_name not in spiders:
            yield f'the operation "{operation.name}" has no spider "{operation.spider_name}"'
