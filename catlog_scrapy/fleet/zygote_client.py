"""Zygote processes as the node sees them: Twisted's side of the pipes."""

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import orjson
from twisted.internet import error, protocol
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from catlog_scrapy.declarations.capabilities import Capabilities
from catlog_scrapy.fleet.process_exit import ProcessExit
from catlog_scrapy.fleet.project_code import ProjectFailed

log = Logger()

OnExit = Callable[[ProcessExit], None]


class ZygoteProcess(protocol.ProcessProtocol):
    """A running `fleet.zygote`, which has one project imported and forks its spiders.

    `capabilities` resolves to what the project can run, or to ProjectFailed. `has_failed` says that
    importing the project failed, not that the process was killed. Only `capabilities`, `is_stale`
    and `is_ready` may be used outside of the reactor's thread.
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
        self._modified_at: dict[str, float] = {}
        self._started_at = time.monotonic()
        self._started_at_for_files = _file_system_time()
        self._unread = b""
        command = [sys.executable, "-m", __package__ + ".zygote", *(["cold"] if cold else [])]
        self.process: Any = cast(Any, reactor).spawnProcess(
            self, sys.executable, command, dict(environment), childFDs={0: "w", 1: "r", 2: 2}
        )

    def run(self, attempt: str, log_file: str, on_exit: OnExit) -> None:
        """Start a child for *attempt*, and call *on_exit* exactly once."""
        self.children[attempt] = on_exit
        if self.is_alive and not self.is_retired:
            self._send({"run": attempt, "log": log_file})
        else:
            self._child_exited(attempt, ProcessExit(not_started="the zygote process has ended"))

    def is_stale(self) -> bool:
        """Return whether the project's files have changed since the process started."""
        return any(
            then >= self._started_at_for_files or _modification_time(file) != then
            for file, then in self._modified_at.items()
        )

    def age(self) -> float:
        """Return the seconds since the process started."""
        return time.monotonic() - self._started_at

    def is_ready(self) -> bool:
        """Return whether the process can start spiders."""
        return self.is_alive and self.capabilities.done() and not self.capabilities.exception()

    def kill_if_importing(self) -> None:
        """Kill a process that has not imported the project in time."""
        if not self.capabilities.done():
            self.kill()

    def retire(self) -> None:
        """Start no further children, and close with the last child."""
        self.is_retired = True
        if not self.children:
            self.close()

    def signal(self, attempt: str, number: int) -> None:
        """Send a signal to the child of *attempt*, if the child still runs."""
        if self.is_alive and attempt in self.children:
            self._send({"signal": attempt, "number": number})

    def close(self) -> None:
        """End the process, which kills its children."""
        if self.is_alive:
            self.process.closeStdin()

    def kill(self) -> None:
        """Kill a process that does not respond. Its children die with it."""
        if self.is_alive:
            with suppress(error.ProcessExitedAlready):
                self.process.signalProcess("KILL")

    def _send(self, command: Mapping[str, object]) -> None:
        self.process.write(orjson.dumps(command) + b"\n")

    def outReceived(self, data: bytes) -> None:
        """Handle the messages that have arrived."""
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            try:
                self._handle_message(orjson.loads(line))
            except Exception:  # Twisted would close the pipe and lose all later messages
                log.failure("a zygote process sent {line}", line=line)

    def _handle_message(self, message: Mapping[str, object]) -> None:
        match message:
            case {"capabilities": dict(values), "obstacle": obstacle, "files": list(files)}:
                self._modified_at = {file: _modification_time(file) for file in files}
                if obstacle:
                    project = values["project"]
                    log.info(
                        "spiders of {project} start cold: {why}", project=project, why=obstacle
                    )
                self.capabilities.set_result(Capabilities(**values))
            case {"failed": reason, "files": list(files)}:
                self._modified_at = {file: _modification_time(file) for file in files}
                self.has_failed = True
                log.error("a project cannot be imported: {reason}", reason=reason)
                self.capabilities.set_exception(ProjectFailed(str(reason)))
            case {"started": attempt, "pid": int(pid)}:
                self.pids[str(attempt)] = pid
            case {"not_started": attempt, "error": reason}:
                self._child_exited(str(attempt), ProcessExit(not_started=str(reason)))
            case {"ended": attempt, "status": int(status), "oom": oom}:
                self._child_exited(str(attempt), ProcessExit(status, bool(oom)))

    def _child_exited(self, attempt: str, exit_: ProcessExit) -> None:
        self.pids.pop(attempt, None)
        on_exit = self.children.pop(attempt, None)
        if on_exit:
            on_exit(exit_)
        if self.is_retired and not self.children:
            self.close()

    def processEnded(self, reason: Failure) -> None:
        """Report the exits of the zygote and of the children that died with it."""
        self.is_alive = False
        how = getattr(reason.value, "signal", None) or getattr(reason.value, "exitCode", None)
        if not self.capabilities.done():
            self.capabilities.set_exception(ProjectFailed(f"its process ended at once ({how})"))
        if not reason.check(error.ProcessDone):
            log.error("a zygote process ended: {how}", how=how)
        for attempt in list(self.children):
            if attempt in self.pids:
                # The kernel kills the children with the zygote, but not the children's processes.
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.pids[attempt], signal.SIGKILL)
                self._child_exited(attempt, ProcessExit(status=signal.SIGKILL))
            else:
                exit_ = ProcessExit(not_started="the zygote process ended before")
                self._child_exited(attempt, exit_)
        self.exited.callback(None)


def _file_system_time() -> float:
    """Return the time of the file system's clock, which may differ from this process's clock."""
    with tempfile.TemporaryFile() as file:
        return os.fstat(file.fileno()).st_mtime


def _modification_time(file: str) -> float:
    try:
        return Path(file).stat().st_mtime
    except OSError:
        return 0.0
