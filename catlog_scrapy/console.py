"""Output of commands."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # importing Rich takes a tenth of a second
    from rich.console import Console


def make_console(**options: Any) -> Console:
    """Make a console, which wraps lines for a terminal, or at COLUMNS, otherwise at 200."""
    from rich.console import Console

    console = Console(highlight=False, **options)
    if console.is_terminal or os.environ.get("COLUMNS", "").isdigit():
        return console
    return Console(highlight=False, width=200, **options)
