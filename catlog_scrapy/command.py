"""The base of catlog's commands.

Not in `commands/`: Scrapy makes an instance of every command class that it finds there.
"""

import argparse
import logging
import math
import os
import signal
import sys
import threading
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from rich.console import Console
from scrapy.addons import AddonManager
from scrapy.commands import ScrapyCommand
from scrapy.exceptions import UsageError
from scrapy.settings import BaseSettings, Settings
from scrapy.utils.project import inside_project
from sqlalchemy import Engine

from catlog_scrapy import addon
from catlog_scrapy.db.engine import UNAVAILABLE, open_database, reason
from catlog_scrapy.db.migrations import require_head, upgrade
from catlog_scrapy.entry_points import SUMMARIES
from catlog_scrapy.exceptions import CatlogError, ConfigurationError
from catlog_scrapy.store.sql import clean

USAGE_ERROR = 2


class CatlogCommand(ScrapyCommand):
    """A command of a catlog project.

    A user's mistake ends in one line on stderr and exit code 2; a load that failed exits 1.
    """

    requires_project = False  # so that outside of one it can say so itself
    requires_crawler_process = False
    default_settings: ClassVar[dict[str, Any]] = {"LOG_ENABLED": False, "LOG_LEVEL": "INFO"}

    def process_options(self, args: list[str], opts: argparse.Namespace) -> None:
        """Prepare the settings; refuse what the command does not know."""
        unknown = [word for word in args if word.startswith("-") and word != "-"]
        if any(clean(word) != word for word in args):
            self.fail("an argument is no UTF-8 text")
        if unknown:
            self.fail(f"unknown option {unknown[0]}; see scrapy {self.name} -h")
        with self.mistakes():
            super().process_options(args, opts)
            self.prepare()

    def prepare(self) -> None:
        """Refuse a place that is no catlog project. Raises CatlogError."""
        prepare(self.project_settings, self.name)

    def run(self, args: list[str], opts: argparse.Namespace) -> None:
        """Do it, turning a user's mistake into one line."""
        with self.mistakes():
            self.exitcode = self.execute(args, opts) or 0

    @abstractmethod
    def execute(self, args: list[str], opts: argparse.Namespace) -> int | None:
        """The command itself; returns its exit code, None being 0."""

    def short_desc(self) -> str:
        """One line, as Scrapy lists it."""
        return SUMMARIES[self.name]

    @property
    def name(self) -> str:
        """The word it is called by."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def project_settings(self) -> Settings:
        """The project's settings; Scrapy sets them before anything runs."""
        if self.settings is None:
            raise RuntimeError("Scrapy has not set the settings yet.")
        return self.settings

    @property
    def console(self) -> Console:
        """Standard output, plain where it is no terminal."""
        return make_console()

    @contextmanager
    def database(self, *, migrate: bool = False) -> Iterator[Engine]:
        """The project's database: see `project_database`."""
        with project_database(self.project_settings, migrate=migrate) as engine:
            yield engine

    @contextmanager
    def mistakes(self) -> Iterator[None]:
        """Turn what a user can mend into one line and exit code 2."""
        try:
            yield
        except CatlogError as error:
            self.fail(str(error))
        except UsageError as error:
            self.fail(f"{error}; see scrapy {self.name} -h")
        except UNAVAILABLE as error:
            self.fail(
                f"the database failed: {reason(error)}; nothing half done was kept, run it again"
            )
        except BrokenPipeError:
            # The reader (`| head`) has seen enough. Python would complain again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except KeyboardInterrupt:
            self.fail("interrupted", code=130)

    def fail(self, message: str, code: int = USAGE_ERROR) -> NoReturn:
        """Say *message* on stderr and exit with *code*."""
        print(f"scrapy {self.name}: {message}", file=sys.stderr)  # noqa: T201
        raise SystemExit(code)


def prepare(settings: Settings, name: str) -> None:
    """Check that this is a catlog project and let the add-on fill in its settings."""
    if not inside_project():
        raise CatlogError("no Scrapy project here; go to the folder that holds its scrapy.cfg.")
    if not addon.is_enabled(settings):
        raise CatlogError(
            "this project does not use catlog; add to its settings:"
            ' ADDONS = {"catlog_scrapy.addon.CatlogAddon": 500}'
        )
    AddonManager.load_pre_crawler_settings(settings)
    require_numbers(settings)
    logging.getLogger(__name__).debug("scrapy %s", name)


def require_numbers(settings: BaseSettings) -> None:
    """Refuse a setting that is no number where its default is one. Raises ConfigurationError."""
    for name, default in addon.DEFAULTS.items():
        if type(default) not in (int, float):
            continue
        least = 0 if name in addon.MAY_BE_ZERO else None
        try:
            value = type(default)(settings[name])
        except (TypeError, ValueError):
            value = -1
        if not (value > 0 or value == least) or value == math.inf:
            what = "a whole number" if type(default) is int else "a number"
            raise ConfigurationError(
                f"{name} is {settings[name]!r}; write {what}"
                f" {'from 0 on' if least == 0 else 'above 0'}, such as {default}."
            )


@contextmanager
def project_database(settings: BaseSettings, *, migrate: bool = False) -> Iterator[Engine]:
    """The database that *settings* name, at this catlog's schema.

    An embedded one is brought there by itself, another one by `scrapy migrate` alone. Raises
    CatlogError.
    """
    url = settings["CATLOG_DATABASE_URL"]
    patient = settings.getbool("CATLOG_REPLACED")
    with open_database(url, Path(settings["CATLOG_HOME"]), patient=patient) as engine:
        if migrate or not url:
            upgrade(engine)
        else:
            require_head(engine)
        yield engine


def stop_signals() -> threading.Event:
    """What SIGINT and SIGTERM set from now on."""
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    return stopping


def make_console(**options: Any) -> Console:
    """A console that does not cut lines where nobody looks at them."""
    console = Console(highlight=False, **options)
    return console if console.is_terminal else Console(highlight=False, width=200, **options)
