"""Commands: their one list in pyproject.toml, and what Scrapy shows of them."""

import argparse
import re
import subprocess
import sys
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from scrapy.commands import ScrapyHelpFormatter
from scrapy.settings import Settings

import catlog_scrapy.commands
from catlog_scrapy.commands import LazyCommand

FOLDER = Path(catlog_scrapy.commands.__file__).parent
POINTS = {
    point.name: point
    for point in entry_points(group="scrapy.commands")
    if point.value.startswith("catlog_scrapy.")
}
# Title of a section of Scrapy's help, underlined.
HEADING = re.compile(r"^(.+)\n[=-]+$", re.MULTILINE)
# Scrapy's own columns before the summary.
LIST_INDENT = 16


def test_entry_points_list_every_command_module() -> None:
    modules = {
        file.stem for file in FOLDER.glob("*.py") if "\nclass Command(" in file.read_text("utf-8")
    }
    assert set(POINTS) == modules


@pytest.mark.parametrize("name", sorted(POINTS))
def test_command_is_described(name: str) -> None:
    command = POINTS[name].load()()
    command.settings = Settings()
    assert isinstance(command, LazyCommand)
    short = command.short_desc()
    assert "command" not in vars(command), "the summary imports the command"
    assert 10 < len(short) <= 80 - LIST_INDENT, short
    assert command.long_desc().startswith(short)


@pytest.mark.parametrize("name", sorted(POINTS))
def test_every_option_of_a_command_is_described(name: str) -> None:
    command = POINTS[name].load()()
    command.settings = Settings()
    parser = argparse.ArgumentParser(
        usage=f"scrapy {name} {command.syntax()}",
        conflict_handler="resolve",
        formatter_class=ScrapyHelpFormatter,
    )
    command.add_options(parser)
    assert [action.dest for action in parser._actions if not action.help] == []
    parser.format_help()


@pytest.mark.parametrize("name", sorted(POINTS))
def test_help_of_a_command_has_no_headings_but_its_own(name: str) -> None:
    """Scrapy makes a heading of each line that ends in a colon once it is wrapped."""
    command = POINTS[name].load()()
    command.settings = Settings()
    headings = set()
    for width in range(60, 121):
        parser = argparse.ArgumentParser(
            usage=f"scrapy {name} {command.syntax()}",
            description=command.long_desc(),
            conflict_handler="resolve",
            formatter_class=partial(ScrapyHelpFormatter, width=width),
        )
        command.add_options(parser)
        headings |= set(HEADING.findall(parser.format_help()))
    assert headings == {"Usage", "Options", "Global Options"}


def test_unknown_command_is_not_an_attribute() -> None:
    with pytest.raises(AttributeError):
        _ = catlog_scrapy.commands.nonsense


def test_listing_commands_imports_no_database() -> None:
    code = (
        "import sys; from importlib.metadata import entry_points;"
        "[p.load()().short_desc() for p in entry_points(group='scrapy.commands')];"
        "print([name for name in ('sqlalchemy', 'psycopg2', 'alembic', 'rich') if name in"
        " sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
