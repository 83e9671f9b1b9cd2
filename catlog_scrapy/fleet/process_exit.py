"""Exits of spider processes, and what an exit means for the attempt."""

import signal
from dataclasses import dataclass
from os import WEXITSTATUS, WIFSIGNALED, WTERMSIG

from catlog_scrapy.worker.single_attempt import EXIT_OUTCOME_UNKNOWN, EXIT_PROJECT_NOT_LOADED

# Signals that come from outside: they say nothing about the spider.
EXTERNAL_SIGNALS = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


@dataclass(frozen=True)
class ProcessExit:
    """Exit of a spider process: its status as of waitpid, or the reason why it did not start.

    `oom` says that the kernel killed a process for lack of memory while this process ran.
    """

    status: int = 0
    oom: bool = False
    not_started: str | None = None

    @property
    def outcome(self) -> str:
        """Return the outcome of the attempt, if the process did not report one itself."""
        if self.is_nodes_fault:
            return "released"
        if self._exit_code == EXIT_OUTCOME_UNKNOWN:
            return "lost"
        return "lost" if self._signal in EXTERNAL_SIGNALS else "failed"

    @property
    def is_nodes_fault(self) -> bool:
        """Return whether any other spider would fail on this node, too."""
        return bool(self.not_started) or self._exit_code == EXIT_PROJECT_NOT_LOADED

    @property
    def _signal(self) -> int | None:
        return WTERMSIG(self.status) if WIFSIGNALED(self.status) else None

    @property
    def _exit_code(self) -> int | None:
        return None if WIFSIGNALED(self.status) else WEXITSTATUS(self.status)

    def __str__(self) -> str:
        if self.not_started:
            return f"the process did not start: {self.not_started}"
        if self._exit_code == EXIT_PROJECT_NOT_LOADED:
            return "the process could not load the project; see its log"
        if self._exit_code == EXIT_OUTCOME_UNKNOWN:
            return "the process lost its lease, or could not reach the database"
        if self._signal is None:
            return (
                f"the process ended with exit status {self._exit_code} before the spider was closed"
            )
        try:
            name = signal.Signals(self._signal).name
        except ValueError:  # a real-time signal
            name = f"signal {self._signal}"
        memory = ": the machine was out of memory" if self.oom and name == "SIGKILL" else ""
        return f"the process was killed by {name}{memory}"
