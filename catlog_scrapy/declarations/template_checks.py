"""Checks of argument templates: each template is rendered with sample values before any load."""

import datetime as dt
from collections.abc import Mapping
from typing import Any

from catlog_scrapy.declarations.source import suggest
from catlog_scrapy.scheduling.argument_templates import (
    DUE_AT,
    placeholder_names,
    render,
    root_field,
    validate_template,
)

# A sample value for each SQL type, as records hold it: data are JSON. A jsonb field may hold any
# value, so it has no sample.
SAMPLES: dict[str, Any] = {
    DUE_AT: dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    "bigint": 1,
    "double precision": 1.5,
    "interval": 1.5,
    "boolean": True,
}


def template_mistake(template: str, fields: Mapping[str, str]) -> str | None:
    """Return the mistake in *template* with its remedy, or None for a valid template.

    *fields* maps the names of placeholders to their SQL types, and `due_at` to itself.
    """
    try:
        words = [root_field(name) for name in placeholder_names(template)]
    except ValueError as error:
        return (
            f'"{template}" is not a valid template ({error}); write {{{{ and }}}} for plain braces'
        )
    for word in words:
        if word not in fields:
            return _unknown(word, fields)
    try:
        validate_template(template)
    except ValueError as error:
        return _mistake(template, error, words[0])
    if any(fields[word] == "jsonb" for word in words):
        return None
    try:
        render(template, {name: SAMPLES.get(kind, "text") for name, kind in fields.items()})
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        return _mistake(template, error, words[0] if words else "part")
    return None


def _mistake(template: str, error: Exception, word: str) -> str:
    instead = f"{DUE_AT}:%Y-%m-%d" if word == DUE_AT else word
    return f'"{template}" is not a valid template ({error}); use for example {{{instead}}}'


def _unknown(word: str, fields: Mapping[str, str]) -> str:
    if word == "part":
        return 'the placeholder "{part}" needs for_each; add for_each, or write a plain value'
    return f'unknown placeholder "{{{word}}}"; {suggest(word, fields)}'
