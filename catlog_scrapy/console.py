"""Output of commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # importing Rich takes a tenth of a second
    from rich.console import Console


def make_console(**options: Any) -> Console:
    """Make a console, which wraps lines for a terminal only."""
    from rich.console import Console

    console = Console(highlight=False, **options)
    return console if console.is_terminal else Console(highlight=False, width=200, **options)
