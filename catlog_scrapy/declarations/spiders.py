"""What the project's spiders say of themselves: arguments and record types."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from scrapy import Spider

from catlog_scrapy.items.record import Record, record_type, record_types

# Attributes with a meaning to Scrapy or catlog, which are no arguments.
RESERVED = {
    "allowed_domains",
    "custom_settings",
    "download_delay",
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
    "sitemap_rules",
    "sitemap_urls",
    "start_urls",
}


def spider_arguments(spidercls: type[Spider]) -> set[str]:
    """The arguments that a spider knows: parameters of its constructors, and public attributes.

    `base_url` is always one: a provider that has it hands it to every spider.
    """
    known = {"base_url"}
    for cls in spidercls.__mro__:
        if cls is Spider or not issubclass(cls, Spider) or cls.__module__.startswith("scrapy."):
            continue
        if "__init__" in vars(cls):
            known |= {
                name
                for name, parameter in inspect.signature(cls.__init__).parameters.items()
                if name != "self"
                and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
            }
        attributes = {**inspect.get_annotations(cls), **vars(cls)}
        known |= {
            name
            for name, value in attributes.items()
            if not name.startswith("_")
            and not isinstance(value, (property, classmethod, staticmethod))
            and not inspect.isfunction(value)
        }
    return known - RESERVED


def operation_record_types(
    spidercls: type[Spider] | None, kinds: Sequence[Mapping[str, Any]]
) -> tuple[type[Record], ...]:
    """The record types of an operation: its spider's own, or made from its declared *kinds*."""
    own = record_types(spidercls) if spidercls else ()
    return own or tuple(
        record_type(
            kind["name"],
            kind["key"],
            {field["name"]: field["type"] for field in kind["fields"]},
        )
        for kind in kinds
    )
