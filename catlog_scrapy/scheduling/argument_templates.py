"""Argument templates: their placeholders, validation and rendering.

Declarations, the API and the start of a load apply the same rules.
"""

import re
from collections.abc import Mapping
from string import Formatter
from typing import Any

DUE_AT = "due_at"
# Letters of Python's strftime, and those of the C library that every platform has.
STRFTIME_LETTERS = set("aAbBcCdDeFfGHIjmMnpRSTtuUVwWxXyYzZ%")
STRFTIME_DIRECTIVE = re.compile(r"%(.?)")
# A width of four digits or more could exhaust the memory.
TOO_WIDE = re.compile(r"\d{4}")
MAX_RENDERED_CHARS = 100_000


def root_field(name: str) -> str:
    """Return the field that a placeholder's name begins with: `part` of `part.year`."""
    return re.split(r"[.\[]", name, maxsplit=1)[0]


def placeholder_names(template: str) -> list[str]:
    """Return the names of the placeholders. Raises ValueError for a malformed template."""
    return [name for _, name, _, _ in Formatter().parse(template) if name is not None]


def validate_template(template: str) -> None:
    """Raise ValueError for a placeholder that does more than insert a formatted value.

    Arguments come from clients, and Python's format strings can reach attributes and nested values.
    """
    for _, name, spec, conversion in Formatter().parse(template):
        if name is None:
            continue
        if "{" in (spec or ""):
            raise ValueError("a placeholder contains a placeholder")
        if root_field(name) != DUE_AT:
            if TOO_WIDE.search(spec or ""):
                raise ValueError(f'the width in "{spec}" is too large')
        elif name != DUE_AT or conversion:
            raise ValueError(f"{DUE_AT} takes only a format")
        elif spec:
            _validate_strftime(spec)


def _validate_strftime(spec: str) -> None:
    directives = STRFTIME_DIRECTIVE.findall(spec)
    if not directives:
        raise ValueError(f'"{spec}" contains no % directive')
    for letter in directives:
        if letter not in STRFTIME_LETTERS:
            raise ValueError(f'"%{letter}" is not a directive of strftime')


def render(template: str, values: Mapping[str, Any]) -> str:
    """Render *template* with *values*.

    Raises LookupError for a value that is missing, and ValueError, AttributeError or TypeError for
    a template that cannot be rendered or whose text cannot be stored.
    """
    validate_template(template)
    text = template.format_map(values)
    if len(text) > MAX_RENDERED_CHARS:
        raise ValueError(f"the text becomes longer than {MAX_RENDERED_CHARS} characters")
    if "\0" in text:
        raise ValueError("the text contains U+0000")
    text.encode()  # raises UnicodeEncodeError, a ValueError, for a lone surrogate
    return text
