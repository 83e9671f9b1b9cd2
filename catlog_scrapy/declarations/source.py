"""A provider file as its author sees it: places by name, and the lines where they stand."""

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
    """A file's name, text and tables. `lines` maps places to line numbers, from 1."""

    name: str
    text: str = ""
    tables: dict[str, Any] = field(default_factory=dict)

    def mistake(self, place: Location, what: str) -> str:
        """The line that tells of a mistake at *place*: file, place, what is wrong, remedy."""
        number = self.line(place)
        name = self.named(place)
        return ": ".join(
            part for part in (f"{self.name}:{number}" if number else self.name, name, what) if part
        )

    def line(self, place: Location) -> int | None:
        """The line of *place*, or of the suggest table around it; None where none was found."""
        lines = _lines(self.text)
        while place:
            # The first of several tables stands for all of them.
            number = lines.get(place) or lines.get((*place, 0))
            if number:
                return number
            place = place[:-1]
        return None

    def named(self, place: Location) -> str:
        """*place* in words, such as `scheme "prices" operation "fuel_prices" timeout`."""
        words: list[str] = []
        fields: list[str] = []
        here: Any = self.tables
        for position, step in enumerate(place):
            here = _step(here, step)
            if isinstance(step, str):
                fields.append(step)
            elif fields and fields[-1] in ("scheme", "operation", "operations", "schedule"):
                words.append(f"{fields.pop().removesuffix('s')} {_label(here, step)}")
            if position == 0 and step == "provider":
                words.append(str(fields.pop()))
        return " ".join([*words, ".".join(fields)] if fields else words)


def suggest(word: str, known: Iterable[str]) -> str:
    """What is to be written instead of *word*, as a remedy: the suggest known name, or all."""
    names = sorted(known)
    close = get_close_matches(word, names, 1, cutoff=0.5)
    if close:
        return f'did you mean "{close[0]}"?'
    if not names:
        return "remove it"
    listed = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    return f"use one of: {listed}"


def label(path: Path) -> str:
    """A file's name with its folder's: enough to find it, and the same on every machine."""
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
    """Where each table and field stands. Inline tables are found by the field that holds them."""
    lines: dict[Location, int] = {}
    counts: dict[Location, int] = {}
    here: Location = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := HEADER.match(line):
            *outer, last = _words(header[2])
            here = ()
            for word in outer:
                here = (*here, word)
                if here in counts:
                    here = (*here, counts[here] - 1)
            here = (*here, last)
            if header[1] == "[[":
                counts[here] = counts.get(here, 0) + 1
                here = (*here, counts[here] - 1)
            lines.setdefault(here, number)
        elif found := FIELD.match(line):
            place = here
            for word in _words(found[1]):
                place = (*place, word)
                lines.setdefault(place, number)
    return lines


def _words(dotted: str) -> list[str]:
    return [word.strip("\"'") for word in re.findall(WORD, dotted)]
