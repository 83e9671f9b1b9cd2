"""What the second witness makes of how a process ended."""

import signal

import pytest

from catlog_scrapy.fleet.zygotes import End
from catlog_scrapy.worker.single_attempt import UNPREPARED, UNTOLD


@pytest.mark.parametrize(
    ("end", "outcome", "says"),
    [
        (End(status=3 << 8), "failed", "exit status 3"),
        (End(status=0), "failed", "exit status 0 before its spider was closed"),
        (End(status=signal.SIGSEGV), "failed", "killed by SIGSEGV"),
        (End(status=signal.SIGKILL), "lost", "killed by SIGKILL"),
        (End(status=signal.SIGKILL, oom=True), "lost", "out of memory"),
        (End(status=40), "failed", "killed by signal 40"),
        (End(status=UNTOLD << 8), "lost", "could not reach the database"),
        (End(status=UNPREPARED << 8), "released", "could not load the project"),
        (End(refused="no new process"), "released", "it did not start: no new process"),
    ],
)
def test_an_end_says_what_happened(end: End, outcome: str, says: str) -> None:
    assert (end.outcome, says in str(end)) == (outcome, True)
