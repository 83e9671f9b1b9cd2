"""Commands in the background: `--wait` starts a command there, `--stop` ends it."""

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from scrapy.settings import Settings

from catlog_scrapy.exceptions import ConfigurationError, NotPossible
from catlog_scrapy.file_locks import close_lock, open_lock, try_exclusive
from catlog_scrapy.readiness import NOTIFY_SOCKET, Readiness

POLL_INTERVAL_S = 0.1
MAX_LOG_LINES = 10
# Time that a process gets to stop, beyond CATLOG_GRACE.
STOP_TIMEOUT_S = 60.0


def add_background_options(parser: argparse.ArgumentParser) -> None:
    """Add --wait and --stop."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--wait",
        action="store_true",
        help="run in the background, and return when everything answers",
    )
    group.add_argument("--stop", action="store_true", help="stop what --wait has started")


def run_in_background(name: str, settings: Settings, opts: argparse.Namespace) -> str | None:
    """Do what the options say of the background; return a message for people.

    Returns None where the command itself is to run: in the foreground, or in the background by now.
    """
    background = Background(Path(settings["CATLOG_HOME"]), name)
    if opts.stop:
        return background.stop(settings.getfloat("CATLOG_GRACE") + STOP_TIMEOUT_S)
    return background.start() if opts.wait else None


class Background:
    """Background process of the command *name*: one in each *home*.

    The process holds a lock on its pid file, so a pid that a killed process left is not believed.
    """

    def __init__(self, home: Path, name: str) -> None:
        self.home = home
        self.name = name
        self.pid_file = home / f"{name}.pid"
        self.log = home / f"{name}.log"

    def start(self) -> str | None:
        """Fork; return None in the background, and the status of a ready process here.

        Raises NotPossible where there is a process already, or it ends before it is ready.
        """
        with self._readable_errors():
            lock = self._open_lock()
            if not try_exclusive(lock):
                os.close(lock)
                raise NotPossible(
                    f"scrapy {self.name} already runs in the background, as process"
                    f" {self.pid_file.read_text()}; stop it with scrapy {self.name} --stop"
                )
            self.pid_file.write_text("")  # the pid of a former process may be another's by now
        sys.stdout.flush()
        sys.stderr.flush()
        readiness = Readiness()
        pid = os.fork()
        if pid == 0:
            self.pid_file.write_text(str(os.getpid()))
            os.environ[NOTIFY_SOCKET] = readiness.address
            self._detach()
            return None  # the lock stays open until the process ends
        os.close(lock)  # without releasing it: the process has it now
        try:
            status = readiness.wait(lambda: self._has_ended(pid))
        except BaseException:  # Ctrl-C, say: a process that nobody has seen start must not stay
            os.kill(pid, signal.SIGTERM)
            os.waitpid(pid, 0)
            raise
        finally:
            readiness.close()
        if status is None:
            lines = self.log.read_text(errors="replace").splitlines()[-MAX_LOG_LINES:]
            raise NotPossible(
                "\n  ".join((f"it did not start; the end of its log, {self.log}:", *lines))
            )
        return f"ready: {status}\nprocess {pid}, log {self.log}; scrapy {self.name} --stop ends it"

    def stop(self, timeout: float) -> str:
        """Stop the background process and return a line for people.

        Raises NotPossible where it takes longer than *timeout* seconds.
        """
        deadline = time.monotonic() + timeout
        with self._readable_errors():
            lock = self._open_lock()
        pid = ""
        try:
            while not try_exclusive(lock):
                if not pid and (pid := self.pid_file.read_text()):  # empty while it starts
                    with suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGTERM)
                if time.monotonic() > deadline:
                    raise NotPossible(
                        f"process {pid or 'that starts'} has not stopped in {timeout:g} s;"
                        f" see {self.log}"
                    )
                time.sleep(POLL_INTERVAL_S)
            return f"scrapy {self.name} " + (
                "has stopped" if pid else "does not run in the background"
            )
        finally:
            close_lock(lock)

    def _open_lock(self) -> int:
        self.home.mkdir(parents=True, exist_ok=True)
        return open_lock(self.pid_file)

    @contextmanager
    def _readable_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ConfigurationError(
                f"CATLOG_HOME {self.home} cannot hold {self.pid_file.name} ({error.strerror});"
                " make the folder writable or choose another CATLOG_HOME"
            ) from error

    def _detach(self) -> None:
        """Leave the terminal; write to the log."""
        os.setsid()
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        os.close(log)
        os.close(nothing)

    @staticmethod
    def _has_ended(pid: int) -> bool:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
