"""Scrapy commands, one in each file.

Scrapy loads the entry points of all commands whatever command was called, in any project of the
environment. So pyproject.toml names classes of this module, such as `Apply`, which are made on
demand and import their command, `commands/apply.py`, when it is used.
"""

import argparse
import ast
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from scrapy.commands import ScrapyCommand
from scrapy.settings import Settings


class LazyCommand(ScrapyCommand):
    """Stand-in for a command, which is imported when more than its summary is needed."""

    module: ClassVar[str]
    requires_crawler_process = False

    @cached_property
    def command(self) -> ScrapyCommand:
        """Import the command."""
        made: ScrapyCommand = import_module(self.module).Command()
        made.settings = self.settings
        return made

    @property
    def default_settings(self) -> dict[str, Any]:  # type: ignore[override]
        """Return the command's default settings."""
        return self.command.default_settings

    @property
    def exitcode(self) -> int:  # type: ignore[override]
        """Return the command's exit code."""
        return self.command.exitcode

    def syntax(self) -> str:
        """Return the command's syntax."""
        return self.command.syntax()

    def short_desc(self) -> str:
        """Read the first line of the command's docstring, without importing the command."""
        spec = find_spec(self.module)
        source = Path(spec.origin).read_text("utf-8") if spec and spec.origin else ""
        found = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
        text = next(ast.get_docstring(node) for node in found if node.name == "Command")
        return summary(text or "")

    def long_desc(self) -> str:
        """Return the command's description."""
        return self.command.long_desc()

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's options."""
        self._pass_settings()
        self.command.add_options(parser)

    def process_options(self, args: list[str], opts: argparse.Namespace) -> None:
        """Let the command process its options."""
        self._pass_settings()
        self.command.process_options(args, opts)

    def run(self, args: list[str], opts: argparse.Namespace) -> None:
        """Run the command."""
        self.command.run(args, opts)

    def _pass_settings(self) -> None:
        # Scrapy sets them after it has asked for the default settings.
        settings: Settings | None = self.settings
        self.command.settings = settings


def summary(docstring: str) -> str:
    """Return the first sentence of *docstring*, as Scrapy lists commands."""
    return docstring.partition("\n")[0].rstrip(".")


def __getattr__(name: str) -> type[LazyCommand]:
    if not name.istitle():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return type(name, (LazyCommand,), {"module": f"{__name__}.{name.lower()}"})
