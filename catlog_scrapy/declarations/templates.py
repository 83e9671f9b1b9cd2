"""What an operation's arguments are filled in from, tried out before anything runs."""

import datetime as dt
import re
from collections.abc import Mapping
from string import Formatter
from typing import Any

from catlog_scrapy.declarations.source import nearest

# Python's own, and of the C library's those that every platform has.
DIRECTIVES = set("aAbBcCdDeFfGHIjmMnpRSTtuUVwWxXyYzZ%")
DIRECTIVE = re.compile(r"%(.?)")
INSTANT = "due_at"
# What a record's field is at run time, by its SQL type: data come as JSON. Of jsonb it is unknown.
SAMPLES: dict[str, Any] = {
    INSTANT: dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    "bigint": 1,
    "double precision": 1.5,
    "interval": 1.5,
    "boolean": True,
}


def template_mistake(template: str, fields: Mapping[str, str]) -> str | None:
    """What is wrong with *template*, and the remedy; None where it can be filled in.

    *fields* maps the names at hand to their SQL types, `due_at` to itself.
    """
    try:
        parts = [part for part in Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        return f'"{template}" cannot be filled in ({error}); write {{{{ and }}}} for plain braces'
    for _, name, spec, _ in parts:
        word = re.split(r"[.\[]", name or "", maxsplit=1)[0]
        if word not in fields:
            return _unknown(word, fields)
        if word == name == INSTANT and spec and (wrong := _spec_mistake(spec)):
            return f'"{template}" cannot be filled in ({wrong}); write such as {{due_at:%Y-%m-%d}}'
    if any(fields.get(re.split(r"[.\[]", name or "")[0]) == "jsonb" for _, name, _, _ in parts):
        return None
    try:
        template.format_map({name: SAMPLES.get(kind, "text") for name, kind in fields.items()})
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        return f'"{template}" cannot be filled in ({error}); write such as {{{parts[0][1]}}}'
    return None


def _unknown(word: str, fields: Mapping[str, str]) -> str:
    if word == "part":
        return 'the placeholder "{part}" needs for_each; add it, or write the word itself'
    return f'unknown placeholder "{{{word}}}"; {nearest(word, fields)}'


def _spec_mistake(spec: str) -> str | None:
    directives = DIRECTIVE.findall(spec)
    if not directives:
        return f'"{spec}" has no % in it'
    unknown = [letter for letter in directives if letter not in DIRECTIVES]
    return f'"%{unknown[0]}" is no directive of strftime' if unknown else None
