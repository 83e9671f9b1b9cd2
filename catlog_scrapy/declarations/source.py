"""A provider file as text: locations in the TOML document and their line numbers."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

Location = tuple[str | int, ...]

HEADER = re.compile(r"\s*(\[\[?)\s*([^\[\]]+?)\s*\]")
WORD = r"""(?:[\w-]+|"[^"]*"|'[^']*')"""
FIELD = re.compile(rf"\s*({WORD}(?:\s*\.\s*{WORD})*)\s*=")


@dataclass(frozen=True)
class SourceFile:
    """A file's name, text and parsed tables."""

    name: str
    text: str = ""
    tables: dict[str, Any] = field(default_factory=dict)

    def mistake(self, location: Location, message: str) -> str:
        """Format a mistake as one line: file and line, path of the location, message."""
        number = self.line(location)
        file = f"{self.name}:{number}" if number else self.name
        return ": ".join(part for part in (file, self.path(location), message) if part)

    def line(self, location: Location) -> int | None:
        """Return the line of *location*, or of the innermost table around it that has a line."""
        lines = _lines(self.text)
        while location:
            # An array of tables has the line of its first table.
            number = lines.get(location) or lines.get((*location, 0))
            if number:
                return number
            location = location[:-1]
        return None

    def path(self, location: Location) -> str:
        """Format *location*, for example as `scheme "prices" operation "fuel_prices" timeout`."""
        words: list[str] = []
        fields: list[str] = []
        here: Any = self.tables
        for position, step in enumerate(location):
            here = _step(here, step)
            if isinstance(step, str):
                fields.append(step)
            elif fields and fields[-1] in ("scheme", "operation", "operations", "schedule"):
                words.append(f"{fields.pop().removesuffix('s')} {_label(here, step)}")
            if position == 0 and step == "provider":
                words.append(str(fields.pop()))
        return " ".join([*words, ".".join(fields)] if fields else words)


def suggest(word: str, known: Iterable[str]) -> str:
    """Return a remedy for the unknown *word*: the most similar known name, or all names."""
    names = sorted(known)
    close = get_close_matches(word, names, 1, cutoff=0.5)
    if close:
        return f'did you mean "{close[0]}"?'
    if not names:
        return "remove it"
    listed = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    return f"use one of: {listed}"


def label(path: Path) -> str:
    """Return a file's name with its folder's name: short, and equal on every machine."""
    return f"{path.parent.name}/{path.name}"


def _step(here: Any, step: str | int) -> Any:
    if isinstance(here, dict):
        return here.get(str(step))
    if isinstance(here, list) and isinstance(step, int) and step < len(here):
        return here[step]
    return None


def _label(table: Any, index: int) -> str:
    name = table.get("name") if isinstance(table, dict) else table
    return f'"{name}"' if isinstance(name, str) and name else str(index + 1)


def _lines(text: str) -> dict[Location, int]:
    """Return the line of each table and field. An inline table has the line of its field."""
    lines: dict[Location, int] = {}
    counts: dict[Location, int] = {}
    table: Location = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := HEADER.match(line):
            *outer, last = _words(header[2])
            table = ()
            for word in outer:
                table = (*table, word)
                if table in counts:
                    table = (*table, counts[table] - 1)
            table = (*table, last)
            if header[1] == "[[":
                counts[table] = counts.get(table, 0) + 1
                table = (*table, counts[table] - 1)
            lines.setdefault(table, number)
        elif found := FIELD.match(line):
            location = table
            for word in _words(found[1]):
                location = (*location, word)
                lines.setdefault(location, number)
    return lines


def _words(dotted: str) -> list[str]:
    return [word.strip("\"'") for word in re.findall(WORD, dotted)]
