"""Output of commands."""

from __future__ import annotations

import datetime as dt
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # importing Rich takes a tenth of a second
    from rich.console import Console


def make_console(**options: Any) -> Console:
    """Make a console, which wraps lines for a terminal only."""
    from rich.console import Console

    console = Console(highlight=False, **options)
    return console if console.is_terminal else Console(highlight=False, width=200, **options)


def print_text(console: Console, text: str) -> None:
    """Print a line, which a terminal breaks between words; further lines keep its indentation."""
    if not console.is_terminal:
        console.print(text, markup=False, soft_wrap=True)
        return
    from rich.padding import Padding
    from rich.text import Text

    words = text.lstrip(" ")
    console.print(Padding(Text(words), (0, 0, 0, len(text) - len(words))))


def moment(instant: dt.datetime | None) -> str:
    """Format an instant in local time, to the second; None as nothing."""
    return instant.astimezone().isoformat(sep=" ", timespec="seconds") if instant else ""


def short_moment(instant: dt.datetime) -> str:
    """Format an instant in local time, to the minute; without the year if that is this year."""
    local = instant.astimezone()
    is_this_year = local.year == dt.datetime.now().astimezone().year
    return local.strftime("%m-%d %H:%M" if is_this_year else "%Y-%m-%d")


def warn(line: str) -> None:
    """Print a warning on stderr, where it mixes neither with output nor with Scrapy's log."""
    print(f"warning: {line}", file=sys.stderr)  # noqa: T201
