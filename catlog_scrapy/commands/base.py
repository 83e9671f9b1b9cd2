"""Base of catlog's commands."""

from __future__ import annotations

import argparse
import inspect
import io
import os
import re
import signal
import sys
import threading
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from scrapy.commands import ScrapyCommand
from scrapy.exceptions import UsageError
from scrapy.settings import Settings
from scrapy.utils.conf import arglist_to_dict

from catlog_scrapy import config
from catlog_scrapy.commands import summary
from catlog_scrapy.console import make_console
from catlog_scrapy.db.refusals import refusals_reported
from catlog_scrapy.exceptions import CatlogError
from catlog_scrapy.project import prepare, project_database, readable_database
from catlog_scrapy.termination import Terminated, end_by_sigterm, raise_on_termination

if TYPE_CHECKING:  # commands that only read do without SQLAlchemy; see db/driver.py
    from rich.console import Console
    from sqlalchemy import Engine

    from catlog_scrapy.db.driver import DriverConnection

USAGE_ERROR = 2


class CatlogCommand(ScrapyCommand):
    """Base class of catlog's commands.

    A user's mistake ends with one line on stderr and exit code 2; a load that failed, with 1.
    """

    requires_project = False  # so that the command itself refuses a folder without a project
    requires_crawler_process = False
    default_settings: ClassVar[dict[str, Any]] = {"LOG_ENABLED": False, "LOG_LEVEL": "INFO"}
    # A service runs until a signal ends it, so SIGTERM is not a failure.
    is_service: ClassVar[bool] = False

    def process_options(self, args: list[str], opts: argparse.Namespace) -> None:
        """Prepare the settings and signal handlers, and refuse unknown options."""
        # For argparse too, a word with a space is an argument: a query may begin with a comment.
        unknown = [word for word in args if re.fullmatch(r"-\S+", word)]
        try:
            "".join(args).encode()
        except UnicodeEncodeError:
            self.fail("an argument is not valid UTF-8")
        if unknown:
            self.fail(f"unknown option {unknown[0]}; see scrapy {self.name} -h")
        raise_on_termination()
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # not the streams of tests
                stream.reconfigure(errors="backslashreplace")
        with self.mistakes():
            super().process_options(args, opts)
            config.pass_on(arglist_to_dict(opts.set))
            self.prepare()

    def prepare(self) -> None:
        """Prepare the project. Raises CatlogError outside a catlog project."""
        prepare(self.project_settings)

    def run(self, args: list[str], opts: argparse.Namespace) -> None:
        """Execute the command, and turn a user's mistake into one line."""
        with self.mistakes():
            self.exitcode = self.execute(args, opts) or 0

    @abstractmethod
    def execute(self, args: list[str], opts: argparse.Namespace) -> int | None:
        """Execute the command and return its exit code; None means 0."""

    def short_desc(self) -> str:
        """Return the first line of the class's docstring."""
        return summary(inspect.getdoc(type(self)) or "")

    def long_desc(self) -> str:
        """Return the class's docstring."""
        return inspect.getdoc(type(self)) or ""

    @property
    def name(self) -> str:
        """Return the command's name: that of its module."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def project_settings(self) -> Settings:
        """Return the project's settings, which Scrapy sets before it runs the command."""
        if self.settings is None:
            raise RuntimeError("Scrapy has not set the settings yet.")
        return self.settings

    @property
    def console(self) -> Console:
        """Return a console on standard output, plain outside a terminal."""
        return make_console()

    @contextmanager
    def database(self, *, any_revision: bool = False) -> Iterator[Engine]:
        """Open the project's database; see `project_database`."""
        with (
            refusals_reported(),
            project_database(self.project_settings, any_revision=any_revision) as engine,
        ):
            yield engine

    @contextmanager
    def readable_database(self) -> Iterator[Engine | DriverConnection]:
        """Open the project's database to read it; see `readable_database`."""
        with refusals_reported(), readable_database(self.project_settings) as database:
            yield database

    @contextmanager
    def mistakes(self) -> Iterator[None]:
        """Turn an error that a user can correct into one line and exit code 2.

        SIGTERM ends a service with exit code 0, and other commands by the signal.
        """
        try:
            yield
        except CatlogError as error:
            self.fail(str(error))
        except UsageError as error:
            self.fail(f"{error}; see scrapy {self.name} -h")
        except BrokenPipeError:
            # The reader (`| head`) has seen enough. Python would complain again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except Terminated:
            if self.is_service:
                raise SystemExit(0) from None
            end_by_sigterm()
        except KeyboardInterrupt:
            self.fail("interrupted", code=130)

    def fail(self, message: str, code: int = USAGE_ERROR) -> NoReturn:
        """Print *message* on stderr and exit with *code*."""
        self.print_error(message)
        raise SystemExit(code)

    def print_error(self, message: str) -> None:
        """Print *message* on stderr."""
        print(f"scrapy {self.name}: {message}", file=sys.stderr)  # noqa: T201


def stop_signals() -> threading.Event:
    """Return an event that SIGINT and SIGTERM set from now on."""
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    return stopping
