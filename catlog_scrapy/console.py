"""Output of commands."""

from typing import Any

from rich.console import Console


def make_console(**options: Any) -> Console:
    """Make a console, which wraps lines for a terminal only."""
    console = Console(highlight=False, **options)
    return console if console.is_terminal else Console(highlight=False, width=200, **options)
