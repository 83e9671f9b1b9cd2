"""Arguments and record types of the project's spiders."""

import inspect
import re
import traceback
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scrapy import Spider
from scrapy.settings import BaseSettings
from scrapy.spiderloader import SpiderLoaderProtocol, get_spider_loader

from catlog_scrapy.exceptions import DeclarationError
from catlog_scrapy.records.lookup import make_record_type, record_types
from catlog_scrapy.records.record import Record
from catlog_scrapy.scheduling.argument_urls import AllowedPlaces, url_mistakes

# Attributes that Scrapy or catlog interprets: they are not arguments.
RESERVED_ATTRIBUTES = {
    "allowed_domains",
    "crawler",
    "custom_settings",
    "download_delay",
    "fresh",
    "handle_httpstatus_all",
    "handle_httpstatus_list",
    "http_pass",
    "http_user",
    "iterator",
    "itertag",
    "namespaces",
    "max_concurrent_requests",
    "name",
    "record",
    "rules",
    "settings",
    "sitemap_rules",
    "sitemap_urls",
    "start_urls",
}
# Matches the annotation as an object or, with postponed evaluation, as text.
CLASS_VAR = re.compile(r"(typing\.)?ClassVar\b")


def project_name(settings: BaseSettings) -> str:
    """Return the project's name in the database."""
    return str(settings.get("CATLOG_PROJECT") or settings["BOT_NAME"])


def load_spiders(settings: BaseSettings) -> SpiderLoaderProtocol:
    """Return the project's spiders. Raises DeclarationError if a module cannot be imported."""
    try:
        return get_spider_loader(settings)
    except Exception as error:  # the boundary to the project's modules: they may raise anything
        raise DeclarationError(
            f"the project's spiders cannot be imported:{_place(error)}"
            f" {type(error).__name__}: {next(iter(str(error).splitlines()), '').rstrip('.')};"
            " correct the module; scrapy list shows the traceback"
        ) from error


def _place(error: Exception) -> str:
    """Return the first line of the project's own code in the traceback of *error*."""
    if isinstance(error, SyntaxError):
        return ""  # its text names file and line
    frames = [
        (frame.f_globals.get("__name__", ""), line)
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    machinery = ("scrapy.", "importlib", "_frozen_importlib", __name__)
    for name, line in frames:
        if not name.startswith(machinery):
            return f" {name} line {line}:"
    return ""


def spider_arguments(spidercls: type[Spider]) -> set[str]:
    """Return a spider's arguments: parameters of its constructors, and public attributes.

    Attributes annotated as ClassVar are not arguments. `base_url` always is an argument: catlog
    passes the provider's base_url to every spider.
    """
    known, fixed = {"base_url"}, set(RESERVED_ATTRIBUTES)
    # Mixins stand before Spider as well.
    for cls in spidercls.__mro__[: spidercls.__mro__.index(Spider)]:
        if cls.__module__.startswith("scrapy."):
            known -= set(vars(cls))
            continue
        if "__init__" in vars(cls):
            known |= {
                name
                for name, parameter in inspect.signature(vars(cls)["__init__"]).parameters.items()
                if name != "self"
                and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
            }
        annotations = inspect.get_annotations(cls)
        fixed |= {name for name, type_ in annotations.items() if CLASS_VAR.match(str(type_))}
        attributes = {**annotations, **vars(cls)}
        known |= {
            name
            for name, value in attributes.items()
            if not name.startswith("_")
            and not isinstance(value, (property, classmethod, staticmethod))
            and not callable(vars(cls).get(name))
        }
    return known - fixed


def has_only_start_requests(spidercls: type[Spider]) -> bool:
    """Return whether a spider makes its requests in a method that Scrapy no longer calls.

    A spider for several versions of Scrapy also has `start()`.
    """
    for cls in spidercls.__mro__:
        if "start" in vars(cls):
            return False
        if "start_requests" in vars(cls):
            return True
    return False


def operation_record_types(
    spidercls: type[Spider] | None, kinds: Sequence[Mapping[str, Any]]
) -> tuple[type[Record], ...]:
    """Return an operation's record types: its spider's own, or those made from its *kinds*."""
    own = record_types(spidercls) if spidercls else ()
    return own or tuple(
        make_record_type(
            kind["name"],
            kind["key"],
            {field["name"]: field["type"] for field in kind["fields"]},
            untracked=kind.get("untracked", ()),
            rules=kind.get("rules", {}),
        )
        for kind in kinds
    )


def base_url_variable(provider: str) -> str:
    """Return the name of the variable that overrides a provider's base URL."""
    return "CATLOG_BASE_URL_" + provider.upper().replace("-", "_")


def allowed_places(
    settings: BaseSettings, provider: str, base_url: str | None, hosts: Iterable[str]
) -> AllowedPlaces:
    """Return the places that URLs in the arguments of an operation with *hosts* may point to."""
    return AllowedPlaces.of((base_url, base_url_of(settings, provider, base_url)), hosts)


def misplaced_arguments(
    settings: BaseSettings,
    provider: str,
    operations: Iterable[Mapping[str, Any]],
    arguments: Mapping[str, str],
) -> dict[str, str]:
    """Return the reason for each argument that points where one of *operations* may not read.

    *operations* are rows of `scheme_operations`.
    """
    mistakes: dict[str, str] = {}
    for operation in operations:
        places = allowed_places(settings, provider, operation["base_url"], operation["hosts"])
        mistakes |= url_mistakes(places, arguments)
    return mistakes


def base_url_of(settings: BaseSettings, provider: str, declared: str | None) -> str | None:
    """Return a provider's base URL: CATLOG_BASE_URL_<PROVIDER>, or else the *declared* URL."""
    override: str | None = settings.get(base_url_variable(provider), declared)
    return override or declared
