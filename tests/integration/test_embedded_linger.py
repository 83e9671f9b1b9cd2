"""Embedded server after its last user: it lingers for a limited time at a terminal."""

import os
import pty
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from catlog_scrapy.db.embedded import EmbeddedServer
from catlog_scrapy.file_locks import close_lock, open_lock, try_exclusive
from tests.support.embedded import (
    USER,
    a_user,
    ask,
    end_servers,
    gone,
    kill,
    postmaster,
    start_user,
    starts,
    wait_for,
)
from tests.support.project import Project
from tests.support.waiting import WAIT_LIMIT_S

# Seconds: so long that a slow machine does not end it, and so short that a test waits for it.
LONG, SHORT = 600, 1
LINGERING_USER = USER.replace("EmbeddedServer(home)", f"EmbeddedServer(home, linger={SHORT})")
BUSY_USER = """
for _ in range(8):
    with EmbeddedServer(home, linger=0.01) as url:
        connection = psycopg2.connect(url.replace('+psycopg2', ''))
        connection.cursor().execute('SELECT 1')
        connection.close()
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "home"
    for process in lingerers(tmp_path):
        kill(process)
    end_servers(tmp_path)
    shutil.rmtree(EmbeddedServer(tmp_path / "home").socket, ignore_errors=True)


def lingerers(home: Path) -> list[psutil.Process]:
    """Return the processes that keep the server in *home* running after its last user."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            line = process.cmdline()
            if "catlog_scrapy.db.linger" in line and any(str(home) in word for word in line):
                found.append(process)
    return found


def use(home: Path, linger: float | None) -> psutil.Process:
    """Use the server once, and return its process."""
    with EmbeddedServer(home, linger=linger) as url:
        assert ask(url, "SELECT 1") == 1
        return postmaster(home)


def nothing_lingers(home: Path) -> bool:
    lock = open_lock(home / "linger.lock")
    free = try_exclusive(lock)
    close_lock(lock)
    return free and not (home / "postgres" / "postmaster.pid").exists()


def test_server_stops_some_time_after_its_last_user(home: Path) -> None:
    server = use(home, SHORT)
    assert server.is_running()
    assert gone(server)
    wait_for(lambda: nothing_lingers(home))
    assert not EmbeddedServer(home).socket.exists()
    assert gone(use(home, None)), "a former user's wish has ended with its process"


def test_next_user_finds_the_lingering_server(home: Path) -> None:
    server = use(home, LONG)
    assert use(home, LONG) == server
    assert use(home, None) == server
    assert server.is_running()
    assert starts(home) == 1
    assert len(lingerers(home)) == 1


def test_user_that_does_not_let_it_linger_stops_the_server(home: Path) -> None:
    assert use(home, LONG) == (server := use(home, 0))
    assert gone(server)
    assert (revived := use(home, LONG)).is_running()
    assert len(lingerers(home)) == 1
    assert gone(use(home, 0))
    assert gone(revived)


def test_killed_last_user_leaves_no_server_behind(home: Path) -> None:
    with start_user(home, LINGERING_USER) as user:
        assert user.stdout
        assert user.stdout.readline() == "ready\n"
        server = postmaster(home)
        user.kill()
    assert gone(server)
    wait_for(lambda: nothing_lingers(home))


def test_server_stays_while_it_is_used_longer_than_it_lingers(home: Path) -> None:
    with a_user(home, LINGERING_USER):
        server = postmaster(home)
        time.sleep(2 * SHORT)
        assert server.is_running()
        assert len(lingerers(home)) == 1
    assert gone(server)


def test_server_that_crashes_while_it_lingers_is_restarted(home: Path) -> None:
    kill(use(home, LONG))
    assert use(home, LONG).is_running()
    assert len(lingerers(home)) == 1


def test_server_whose_lingering_process_was_killed_ends_with_the_next_user(home: Path) -> None:
    server = use(home, LONG)
    for process in lingerers(home):
        kill(process)
    assert server.is_running()
    assert use(home, None) == server
    assert gone(server)


def test_users_that_come_when_lingering_ends_never_fail(home: Path) -> None:
    users = [start_user(home, BUSY_USER) for _ in range(3)]
    for user in users:
        with user:
            assert user.communicate(timeout=WAIT_LIMIT_S) == ("", "")
            assert user.returncode == 0
    wait_for(lambda: nothing_lingers(home))


def test_lingering_ends_when_the_home_is_removed(home: Path) -> None:
    with a_user(home, LINGERING_USER):
        server = postmaster(home)
        [process] = lingerers(home)
        while home.exists():
            shutil.rmtree(home, ignore_errors=True)  # the server still writes there
    assert gone(process)
    assert gone(server)


def test_removed_home_leaves_the_next_server_of_the_path_alone(home: Path) -> None:
    orphan = use(home, LONG)
    [process] = lingerers(home)
    while home.exists():
        shutil.rmtree(home, ignore_errors=True)
    with EmbeddedServer(home) as url:
        assert gone(orphan)
        assert gone(process)
        assert ask(url, "SELECT 1") == 1, "the orphan has removed the socket"


def test_next_server_waits_until_that_of_a_removed_home_has_gone(home: Path) -> None:
    orphan = use(home, LONG)
    [process] = lingerers(home)
    process.suspend()
    while home.exists():
        shutil.rmtree(home, ignore_errors=True)
    resuming = threading.Timer(2, process.resume)
    resuming.start()
    with EmbeddedServer(home) as url:
        assert gone(orphan)
        assert ask(url, "SELECT 1") == 1
    resuming.join()


def test_removed_data_folder_ends_the_lingering_server(home: Path) -> None:
    server = use(home, LONG)
    while (home / "postgres").exists():
        shutil.rmtree(home / "postgres", ignore_errors=True)
    assert gone(server)
    assert use(home, LONG).is_running()
    assert len(lingerers(home)) == 1


def test_moved_home_leaves_no_process_behind(home: Path) -> None:
    server = use(home, LONG)
    processes = [server, *server.children(recursive=True), *lingerers(home)]
    home.rename(home.with_name("elsewhere"))
    assert all(gone(process) for process in processes)
    assert gone(use(home.with_name("elsewhere"), None)), "the data are intact"


def open_names(process: psutil.Process) -> set[str]:
    """Return the names of the files that a process has open."""
    return {Path(file.path).name for file in process.open_files()}


def test_lingering_process_knows_no_secrets_and_holds_no_folder(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CATLOG_SECRET_SHOP_TOKEN", "s3cret")
    server = use(home, LONG)
    [process] = lingerers(home)
    assert not [name for name in process.environ() if name.startswith("CATLOG_")]
    assert process.cwd() == "/"
    assert os.getsid(process.pid) != os.getsid(0)
    # Python reads its own files while it starts.
    wait_for(lambda: open_names(process) <= {"linger.lock", "users.lock"})
    if os.geteuid() == 0:
        assert not [name for name in server.environ() if name.startswith("CATLOG_")]


def test_server_lingers_for_commands_at_a_terminal_only(home: Path, tmp_path: Path) -> None:
    project = Project(tmp_path, None, CATLOG_HOME=str(home), CATLOG_EMBEDDED_LINGER=str(LONG))
    project.scrapy("status")
    assert not (home / "postgres" / "postmaster.pid").exists()
    assert not lingerers(home)
    at_a_terminal(project, "status")
    server = postmaster(home)
    project.scrapy("status")
    assert postmaster(home) == server
    assert starts(home) == 2
    project.environment["CATLOG_EMBEDDED_LINGER"] = "0"
    at_a_terminal(project, "status")
    assert gone(server)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&-"])
def test_closed_standard_streams_are_not_a_terminal(
    home: Path, tmp_path: Path, closed: str
) -> None:
    project = Project(tmp_path, None, CATLOG_HOME=str(home), CATLOG_EMBEDDED_LINGER=str(LONG))
    command = f'exec "$0" -m scrapy sql "select 1" {closed}'
    done = subprocess.run(
        ["/bin/sh", "-c", command, sys.executable],
        cwd=project.folder,
        env=project.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert not lingerers(home)


def at_a_terminal(project: Project, *arguments: str) -> None:
    outer, inner = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "scrapy", *arguments],
            cwd=project.folder,
            env=project.environment,
            stdin=inner,
            stdout=inner,
            stderr=subprocess.PIPE,
            check=False,
        )
    finally:
        os.close(inner)
        os.close(outer)
    assert done.returncode == 0, done.stderr
