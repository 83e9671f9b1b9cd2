"""What the project's spiders say of themselves: arguments and record types."""

import inspect
import re
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from scrapy import Spider
from scrapy.settings import BaseSettings
from scrapy.spiderloader import SpiderLoaderProtocol, get_spider_loader

from catlog_scrapy.exceptions import DeclarationError
from catlog_scrapy.records.lookup import make_record_type, record_types
from catlog_scrapy.records.record import Record

# Attributes with a meaning to Scrapy or catlog, which are no arguments.
RESERVED = {
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
# Such an annotation as an object or, with postponed evaluation, as text.
CLASS_VAR = re.compile(r"(typing\.)?ClassVar\b")


def project_name(settings: BaseSettings) -> str:
    """What the project is called in the database, wherever its code lies."""
    return str(settings.get("CATLOG_PROJECT") or settings["BOT_NAME"])


def load_spiders(settings: BaseSettings) -> SpiderLoaderProtocol:
    """The project's spiders. Raises DeclarationError where a module cannot be imported."""
    try:
        return get_spider_loader(settings)
    except Exception as error:  # the boundary to the project's modules: they may raise anything
        raise DeclarationError(
            f"nothing was changed: the project's spiders cannot be imported:{_place(error)}"
            f" {type(error).__name__}: {str(error).rstrip('.')};"
            " correct it, scrapy list shows it in full"
        ) from error


def _place(error: Exception) -> str:
    """The first line of a module, other than Scrapy's and the importing itself, that led there."""
    if isinstance(error, SyntaxError):
        return ""  # it tells its own place
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
    """The arguments that a spider knows: parameters of its constructors, and public attributes.

    What is annotated as ClassVar belongs to the class and is none.
    `base_url` is always one: a provider that has it hands it to every spider.
    """
    known, fixed = {"base_url"}, set(RESERVED)
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
        fixed |= {name for name, said in annotations.items() if CLASS_VAR.match(str(said))}
        attributes = {**annotations, **vars(cls)}
        known |= {
            name
            for name, value in attributes.items()
            if not name.startswith("_")
            and not isinstance(value, (property, classmethod, staticmethod))
            and not callable(vars(cls).get(name))
        }
    return known - fixed


def operation_record_types(
    spidercls: type[Spider] | None, kinds: Sequence[Mapping[str, Any]]
) -> tuple[type[Record], ...]:
    """The record types of an operation: its spider's own, or made from its declared *kinds*."""
    own = record_types(spidercls) if spidercls else ()
    return own or tuple(
        make_record_type(
            kind["name"],
            kind["key"],
            {field["name"]: field["type"] for field in kind["fields"]},
        )
        for kind in kinds
    )


def base_url_of(settings: BaseSettings, provider: str, declared: str | None) -> str | None:
    """A provider's base URL: CATLOG_BASE_URL_<PROVIDER> overrides the *declared* one."""
    override: str | None = settings.get(
        "CATLOG_BASE_URL_" + provider.upper().replace("-", "_"), declared
    )
    return override or declared
