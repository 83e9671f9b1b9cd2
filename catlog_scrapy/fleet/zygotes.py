"""The warm parents of a node, as the node sees them."""

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from os import WEXITSTATUS, WIFSIGNALED, WTERMSIG
from pathlib import Path
from typing import Any, cast

import orjson
from twisted.internet import error, protocol
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from catlog_scrapy.declarations.capabilities import Capabilities
from catlog_scrapy.exceptions import CatlogError
from catlog_scrapy.worker.single_attempt import EXIT_OUTCOME_UNKNOWN, EXIT_PROJECT_NOT_LOADED

log = Logger()

# What comes from outside and says nothing of the spider.
EXTERNAL_SIGNALS = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


class ProjectFailed(CatlogError):
    """A project cannot be imported on this node. Raised by `fleet`; the reason is its own words."""


@dataclass(frozen=True)
class ProcessExit:
    """How a child ended: its status as of waitpid; or `refused`, why there was none."""

    status: int = 0
    oom: bool = False
    refused: str | None = None

    @property
    def outcome(self) -> str:
        """What that makes of an attempt that was not closed."""
        if self.refused or self._is_unprepared:
            return "released"
        if self._is_untold:
            return "lost"
        killed = WIFSIGNALED(self.status) and WTERMSIG(self.status) in EXTERNAL_SIGNALS
        return "lost" if killed else "failed"

    @property
    def is_nodes_fault(self) -> bool:
        """Whether another one would fare no better here."""
        return bool(self.refused) or self._is_unprepared

    @property
    def _is_unprepared(self) -> bool:
        return not WIFSIGNALED(self.status) and WEXITSTATUS(self.status) == EXIT_PROJECT_NOT_LOADED

    @property
    def _is_untold(self) -> bool:
        return not WIFSIGNALED(self.status) and WEXITSTATUS(self.status) == EXIT_OUTCOME_UNKNOWN

    def __str__(self) -> str:
        if self.refused:
            return f"it did not start: {self.refused}"
        if self._is_unprepared:
            return "it did not start: its process could not load the project; its log says why"
        if self._is_untold:
            return "its process lost its lease, or could not reach the database"
        if not WIFSIGNALED(self.status):
            return (
                f"its process ended with exit status {WEXITSTATUS(self.status)}"
                " before its spider was closed"
            )
        try:
            name = signal.Signals(WTERMSIG(self.status)).name
        except ValueError:  # a real-time one
            name = f"signal {WTERMSIG(self.status)}"
        memory = ": the machine was out of memory" if self.oom and name == "SIGKILL" else ""
        return f"its process was killed by {name}{memory}"


OnExit = Callable[[ProcessExit], None]


class ZygoteProcess(protocol.ProcessProtocol):
    """A `fleet.zygote` process. All but `capabilities` belongs to the reactor's thread.

    `capabilities` comes to what the project can run, or to ProjectFailed. It `has_failed` where
    importing the project has, not where it was killed.
    """

    def __init__(self, environment: Mapping[str, str], *, cold: bool) -> None:
        from twisted.internet import reactor

        self.capabilities: Future[Capabilities] = Future()
        self.children: dict[str, OnExit] = {}
        self.pids: dict[str, int] = {}
        self.is_alive = True
        self.exited: Deferred[None] = Deferred()
        self.has_failed = False
        self.is_retired = False
        self._files: dict[str, float] = {}
        self._began = time.monotonic()
        self._started = _now_for_files()
        self._rest = b""
        command = [sys.executable, "-m", __package__ + ".zygote", *(["cold"] if cold else [])]
        self.process: Any = cast(Any, reactor).spawnProcess(
            self, sys.executable, command, dict(environment), childFDs={0: "w", 1: "r", 2: 2}
        )

    def run(self, attempt: str, log_file: str, ended: OnExit) -> None:
        """Start a child for *attempt*; *ended* is called once, however it ends."""
        self.children[attempt] = ended
        if self.is_alive and not self.is_retired:
            self._send({"run": attempt, "log": log_file})
        else:
            self._end(attempt, ProcessExit(refused="the process that starts spiders is gone"))

    def is_stale(self) -> bool:
        """Whether the project's files have changed since this began. For any thread."""
        return any(
            then >= self._started or _changed_at(file) != then for file, then in self._files.items()
        )

    def age(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._began

    def is_ready(self) -> bool:
        """Whether it is there to run something. For any thread."""
        return self.is_alive and self.capabilities.done() and not self.capabilities.exception()

    def kill_if_importing(self) -> None:
        """It has taken too long."""
        if not self.capabilities.done():
            self.kill()

    def retire(self) -> None:
        """Take nothing new, and go when the last child has."""
        self.is_retired = True
        if not self.children:
            self.close()

    def signal(self, attempt: str, number: int) -> None:
        """Send a signal to the child of *attempt*, if it still runs."""
        if self.is_alive and attempt in self.children:
            self._send({"signal": attempt, "number": number})

    def close(self) -> None:
        """Let it go; what runs is killed."""
        if self.is_alive:
            self.process.closeStdin()

    def kill(self) -> None:
        """Be rid of one that does not answer; what runs is killed."""
        if self.is_alive:
            with suppress(error.ProcessExitedAlready):
                self.process.signalProcess("KILL")

    def _send(self, command: Mapping[str, object]) -> None:
        self.process.write(orjson.dumps(command) + b"\n")

    def outReceived(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            try:
                self._handle_reply(orjson.loads(line))
            except Exception:  # Twisted would close the pipe, and nothing were heard any more
                log.failure("an answer of a process that starts spiders: {line}", line=line)

    def _handle_reply(self, answer: Mapping[str, object]) -> None:
        match answer:
            case {"capabilities": dict(capabilities), "obstacle": obstacle, "files": list(files)}:
                self._files = {file: _changed_at(file) for file in files}
                if obstacle:
                    log.info("spiders of {capabilities[project]} start cold: {obstacle}", **answer)
                self.capabilities.set_result(Capabilities(**capabilities))
            case {"failed": reason, "files": list(files)}:
                self._files = {file: _changed_at(file) for file in files}
                self.has_failed = True
                log.error("a project cannot be imported: {reason}", reason=reason)
                self.capabilities.set_exception(ProjectFailed(str(reason)))
            case {"began": attempt, "pid": int(pid)}:
                self.pids[str(attempt)] = pid
            case {"refused": attempt, "error": reason}:
                self._end(str(attempt), ProcessExit(refused=str(reason)))
            case {"ended": attempt, "status": int(status), "oom": oom}:
                self._end(str(attempt), ProcessExit(status, bool(oom)))

    def _end(self, attempt: str, end: ProcessExit) -> None:
        self.pids.pop(attempt, None)
        ended = self.children.pop(attempt, None)
        if ended:
            ended(end)
        if self.is_retired and not self.children:
            self.close()

    def processEnded(self, reason: Failure) -> None:
        self.is_alive = False
        how = getattr(reason.value, "signal", None) or getattr(reason.value, "exitCode", None)
        if not self.capabilities.done():
            self.capabilities.set_exception(ProjectFailed(f"its process ended at once ({how})"))
        if not reason.check(error.ProcessDone):
            log.error("a process that starts spiders ended: {how}", how=how)
        for attempt in list(self.children):
            if attempt in self.pids:
                # The kernel has killed its children with it, not what those have started.
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.pids[attempt], signal.SIGKILL)
                self._end(attempt, ProcessExit(status=signal.SIGKILL))
            else:
                self._end(
                    attempt, ProcessExit(refused="the process that starts spiders ended before")
                )
        self.exited.callback(None)


def _now_for_files() -> float:
    """The time as files have it: the clock of this process may be another."""
    with tempfile.TemporaryFile() as file:
        return os.fstat(file.fileno()).st_mtime


def _changed_at(file: str) -> float:
    try:
        return Path(file).stat().st_mtime
    except OSError:
        return 0.0
