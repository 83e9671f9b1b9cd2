"""Arguments are templates, filled in when a load starts: one rule, where declared and where run."""

import re
from collections.abc import Mapping
from string import Formatter
from typing import Any

DUE_AT = "due_at"
# Python's own, and of the C library's those that every platform has.
STRFTIME_LETTERS = set("aAbBcCdDeFfGHIjmMnpRSTtuUVwWxXyYzZ%")
STRFTIME_DIRECTIVE = re.compile(r"%(.?)")
# A width of a thousand or more is no formatting.
TOO_WIDE = re.compile(r"\d{4}")
# Characters of an argument filled in.
MAX_RENDERED_CHARS = 100_000


def root_field(name: str) -> str:
    """What a placeholder's name begins with: the field that it is filled in from."""
    return re.split(r"[.\[]", name, maxsplit=1)[0]


def placeholder_names(template: str) -> list[str]:
    """The names that *template* is filled in by. Raises ValueError for what is no template."""
    return [name for _, name, _, _ in Formatter().parse(template) if name is not None]


def validate_template(template: str) -> None:
    """Raise ValueError for a placeholder that does more than to write what it names.

    Arguments come from clients, and Python's templates reach into what they are given.
    """
    for _, name, spec, conversion in Formatter().parse(template):
        if name is None:
            continue
        if "{" in (spec or ""):
            raise ValueError("there is a placeholder within a placeholder")
        if root_field(name) != DUE_AT:
            if TOO_WIDE.search(spec or ""):
                raise ValueError(f'"{spec}" is too wide')
        elif name != DUE_AT or conversion:
            raise ValueError(f"{DUE_AT} takes nothing but a format")
        elif spec:
            _validate_strftime(spec)


def _validate_strftime(spec: str) -> None:
    directives = STRFTIME_DIRECTIVE.findall(spec)
    if not directives:
        raise ValueError(f'"{spec}" has no % in it')
    for letter in directives:
        if letter not in STRFTIME_LETTERS:
            raise ValueError(f'"%{letter}" is no directive of strftime')


def render(template: str, values: Mapping[str, Any]) -> str:
    """*template* filled in.

    Raises LookupError for what *values* lack, and ValueError, AttributeError or TypeError where it
    cannot be filled in, or not with text that can be stored.
    """
    validate_template(template)
    filled = template.format_map(values)
    if len(filled) > MAX_RENDERED_CHARS:
        raise ValueError(f"it becomes longer than {MAX_RENDERED_CHARS} characters")
    if "\0" in filled:
        raise ValueError("it becomes text with U+0000")
    filled.encode()  # a lone surrogate is a ValueError too
    return filled
