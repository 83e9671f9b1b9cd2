"""Provider files: read, checked, compared with the database, applied."""

from pathlib import Path

from scrapy.settings import BaseSettings
from scrapy.spiderloader import SpiderLoaderProtocol, get_spider_loader
from sqlalchemy import Engine

from catlog_scrapy.declarations.checking import check
from catlog_scrapy.declarations.comparing import Change, compare
from catlog_scrapy.declarations.reading import read_providers
from catlog_scrapy.declarations.spiders import operation_record_types, spider_arguments
from catlog_scrapy.exceptions import DeclarationError
from catlog_scrapy.store.schemes import (
    lock_declarations,
    retire_provider,
    stored_providers,
    write_provider,
)
from catlog_scrapy.store.views import apply_views, check_views

__all__ = ["Change", "apply", "operation_record_types", "spider_arguments"]


def apply(engine: Engine, settings: BaseSettings, *, check_only: bool = False) -> list[Change]:
    """Bring the database to what the project declares; what changed, or would.

    The rows change in one transaction; the views follow, each in its own. Run again, it goes on
    where a former one was interrupted. Raises DeclarationError with a line for each mistake, and
    then nothing was changed.
    """
    files, mistakes = read_providers(Path(settings["CATLOG_PROVIDERS"]))
    views = read_views(Path(settings["CATLOG_VIEWS"]))
    checked = check(files, load_spiders(settings), views)
    refuse(mistakes + checked.mistakes)
    with engine.begin() as connection:
        lock_declarations(connection)
        changes, refused = compare(checked.providers, stored_providers(connection))
        refuse(refused + check_views(connection, checked.providers, views))
        if not check_only:
            declared = {provider.name for provider in checked.providers}
            for provider in stored_providers(connection):
                if provider.name not in declared:
                    retire_provider(connection, provider.name)
            for provider in checked.providers:
                write_provider(connection, provider)
    made = apply_views(engine, checked.providers, views, check_only=check_only)
    return changes + [Change(sign, f"view {name}") for sign, name in made]


def read_views(folder: Path) -> dict[str, str]:
    """The SELECTs of the project's own views, by name; none where there is no such folder."""
    files = sorted(folder.glob("*.sql")) if folder.is_dir() else []
    return {path.stem: path.read_text(encoding="utf-8") for path in files}


def load_spiders(settings: BaseSettings) -> SpiderLoaderProtocol:
    """The project's spiders. Raises DeclarationError where a module cannot be imported."""
    try:
        return get_spider_loader(settings)
    except Exception as error:  # the boundary to the project's modules: they may raise anything
        raise DeclarationError(
            f"the project's spiders cannot be imported: {type(error).__name__}: {error};"
            " scrapy list says where."
        ) from error


def refuse(mistakes: list[str]) -> None:
    """Raise DeclarationError with all *mistakes*, if there are any."""
    if mistakes:
        raise DeclarationError("\n  ".join(["nothing was changed:", *mistakes]))
