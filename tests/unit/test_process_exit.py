"""Outcomes that a supervisor derives from the exit of a spider's process."""

import signal

import pytest

from catlog_scrapy.fleet.process_exit import ProcessExit
from catlog_scrapy.worker.single_attempt import EXIT_OUTCOME_UNKNOWN, EXIT_PROJECT_NOT_LOADED


@pytest.mark.parametrize(
    ("end", "outcome", "says"),
    [
        (ProcessExit(status=3 << 8), "failed", "exit status 3"),
        (ProcessExit(status=0), "failed", "exit status 0 before the spider was closed"),
        (ProcessExit(status=signal.SIGSEGV), "failed", "killed by SIGSEGV"),
        (ProcessExit(status=signal.SIGKILL), "lost", "killed by SIGKILL"),
        (ProcessExit(status=signal.SIGKILL, oom=True), "lost", "out of memory"),
        (ProcessExit(status=40), "failed", "killed by signal 40"),
        (ProcessExit(status=EXIT_OUTCOME_UNKNOWN << 8), "lost", "could not reach the database"),
        (
            ProcessExit(status=EXIT_PROJECT_NOT_LOADED << 8),
            "released",
            "could not load the project",
        ),
        (ProcessExit(not_started="fork failed"), "released", "did not start: fork failed"),
    ],
)
def test_process_exit_gives_outcome_and_message(end: ProcessExit, outcome: str, says: str) -> None:
    assert (end.outcome, says in str(end)) == (outcome, True)
