"""Processes that use an embedded server, and queries of the server's state."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import psycopg2

from tests.support.waiting import WAIT_LIMIT_S

PROJECT = Path(__file__).parents[2]
PREAMBLE = """
import signal
import sys
from pathlib import Path
import psycopg2
from catlog_scrapy.db.embedded import EmbeddedServer
# A shell starts background jobs with SIGINT ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
home = Path(sys.argv[1])
"""
USER = "with EmbeddedServer(home):\n    print('ready', flush=True)\n    sys.stdin.read()"
BUSY_USER = """
for _ in range(10):
    with EmbeddedServer(home) as url:
        connection = psycopg2.connect(url.replace('+psycopg2', ''))
        connection.cursor().execute('SELECT 1')
        connection.close()
"""


def start_user(home: Path, script: str = USER) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + script, home],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@contextmanager
def a_user(home: Path, script: str = USER) -> Iterator[subprocess.Popen[str]]:
    """Start a process that uses the server until the block ends or the process is killed."""
    with start_user(home, script) as user:
        try:
            assert user.stdout and user.stdin
            assert user.stdout.readline() == "ready\n"
            yield user
            with suppress(BrokenPipeError):
                user.stdin.close()
            user.wait(WAIT_LIMIT_S)
        finally:
            user.kill()


def postmaster(home: Path) -> psutil.Process:
    return psutil.Process(int((home / "postgres" / "postmaster.pid").read_text().split()[0]))


def gone(process: psutil.Process) -> bool:
    """Wait for the end of a process, and return whether it ended; a zombie has ended."""
    deadline = time.monotonic() + WAIT_LIMIT_S
    with suppress(psutil.NoSuchProcess):
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
    return True


def kill(process: psutil.Process) -> None:
    process.kill()
    assert gone(process)


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def ask(url: str, query: str) -> object:
    """Return the first value of the result of *query*, None if it has no rows."""
    with closing(psycopg2.connect(url.replace("+psycopg2", ""))) as connection:
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute(query)
        row = cursor.fetchone() if cursor.description else None
        return row and row[0]


def starts(home: Path) -> int:
    return (home / "postgres.log").read_text().count("ready to accept connections")


def end_servers(folder: Path) -> None:
    """End the servers that a failed test left under *folder*."""
    for pid_file in folder.rglob("postmaster.pid"):
        with suppress(psutil.NoSuchProcess):
            left = psutil.Process(int(pid_file.read_text().split()[0]))
            if left.name() == "postgres":
                left.send_signal(signal.SIGQUIT)
                gone(left)
