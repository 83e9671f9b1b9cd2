"""`scrapy` in processes that are forked from one that has imported Scrapy and catlog.

Importing Scrapy and catlog takes two seconds of CPU, and tests run hundreds of commands. Each
command still has its own process, folder, environment and output.
"""

import atexit
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from pkgutil import iter_modules

from scrapy.settings import default_settings

from catlog_scrapy import commands

BASES = ("DOWNLOADER_MIDDLEWARES_BASE", "SPIDER_MIDDLEWARES_BASE", "EXTENSIONS_BASE")
TIMEOUT_S = 540
# The preloaded modules must not import the reactor, which a fork must not share.
FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(
    [
        *(f"{commands.__name__}.{module.name}" for module in iter_modules(commands.__path__)),
        *(path.rpartition(".")[0] for base in BASES for path in getattr(default_settings, base)),
        "scrapy.cmdline",
        "scrapy.core.engine",
        "scrapy.core.scheduler",
        __name__,
    ]
)


class Command:
    """Running `scrapy ARGUMENTS...` in *folder*, with the interface of `subprocess.Popen`."""

    def __init__(
        self, arguments: Sequence[str], folder: Path, environment: Mapping[str, str]
    ) -> None:
        outputs = tempfile.mkdtemp(prefix="catlog-command-")
        weakref.finalize(self, shutil.rmtree, outputs, ignore_errors=True)
        self._files = [Path(outputs, name) for name in ("out", "err")]
        for file in self._files:
            file.touch()
        self._process = FORKSERVER.Process(
            target=_execute,
            args=(list(arguments), folder, dict(environment), self._files),
            daemon=True,
        )
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Return the exit code, the negative number of a fatal signal, or None while running."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def written(self) -> tuple[str, str]:
        """Return the output so far: stdout and stderr."""
        out, err = (file.read_text(encoding="utf-8", errors="replace") for file in self._files)
        return out, err

    def communicate(self) -> tuple[str, str]:
        """Wait for the end of the command; return stdout and stderr."""
        self._process.join(TIMEOUT_S)
        if self.returncode is None:
            self.kill()
            self._process.join()
            raise TimeoutError(f"the command did not end in {TIMEOUT_S} s: {self.written()}")
        return self.written()


def _execute(
    arguments: list[str], folder: Path, environment: dict[str, str], files: list[Path]
) -> None:
    """Become `python -m scrapy ARGUMENTS...`."""
    for number, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_APPEND), number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["scrapy", *arguments]
    sys.orig_argv = [sys.executable, "-m", *sys.argv]
    sys.path[:0] = [str(folder), *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]

    from scrapy.cmdline import execute

    try:
        execute()
    finally:
        atexit._run_exitfuncs()
