"""Embedded server with real processes: single start, kills, and stop after its last user.

As root these tests also cover the change of user, since temporary folders are closed to others.
"""

import os
import random
import shutil
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import psycopg2
import pytest

from catlog_scrapy.db.embedded import MAX_LOG_BYTES, EmbeddedServer
from catlog_scrapy.exceptions import EmbeddedServerError
from tests.support.embedded import (
    BUSY_USER,
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
from tests.support.waiting import WAIT_LIMIT_S


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """Return a new home; end a server that a failed test leaves in it."""
    yield tmp_path / "home"
    end_servers(tmp_path)
    shutil.rmtree(EmbeddedServer(tmp_path / "home").socket, ignore_errors=True)


def test_server_starts_in_an_empty_home_and_ends_with_its_only_user(
    home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with EmbeddedServer(home) as url:
        socket = EmbeddedServer(home).socket
        assert url == f"postgresql+psycopg2://catlog@/catlog?host={socket}&port=5432"
        assert ask(url, "SELECT current_database()") == "catlog"
        assert ask(url, "SELECT lower('ЦЕНЫ')") == "цены"
        safe = {"fsync": "on", "data_checksums": "on", "server_encoding": "UTF8", "jit": "off"}
        assert {name: ask(url, f"SHOW {name}") for name in safe} == safe
        server = postmaster(home)
    assert gone(server)
    assert capfd.readouterr() == ("", "")


def test_server_listens_only_on_a_private_socket(home: Path) -> None:
    with EmbeddedServer(home):
        assert not postmaster(home).net_connections("inet")
        folder = EmbeddedServer(home).socket
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / ".s.PGSQL.5432").stat().st_mode) == 0o700
        assert postmaster(home).uids().real == folder.stat().st_uid != 0


def test_embedded_server_inherits_no_lock(home: Path) -> None:
    with EmbeddedServer(home):
        server = postmaster(home)
        files = [Path(file.path).name for file in server.open_files()]
    assert "postmaster.pid" not in files and not [name for name in files if "lock" in name]


def test_second_process_shares_the_server_and_the_last_process_stops_it(home: Path) -> None:
    with a_user(home):
        server = postmaster(home)
        with a_user(home), EmbeddedServer(home) as url:
            assert postmaster(home) == server
        assert ask(url, "SELECT 1") == 1
    assert gone(server)
    assert starts(home) == 1


def test_two_users_in_one_process_count_as_two(home: Path) -> None:
    first, second = EmbeddedServer(home), EmbeddedServer(home)
    url = first.acquire()
    second.acquire()
    server = postmaster(home)
    first.release()
    first.release()
    assert ask(url, "SELECT 1") == 1
    second.release()
    assert gone(server)


def test_killed_user_does_not_keep_the_server_running(home: Path) -> None:
    with a_user(home) as user:
        server = postmaster(home)
        user.kill()
    assert server.is_running()
    with EmbeddedServer(home) as url:
        assert ask(url, "SELECT 1") == 1
        assert postmaster(home) == server
    assert gone(server)


def test_interrupting_the_user_that_started_it_leaves_the_server_to_the_others(home: Path) -> None:
    with a_user(home) as starter, EmbeddedServer(home) as url:
        server = postmaster(home)
        os.killpg(starter.pid, signal.SIGINT)
        starter.wait(WAIT_LIMIT_S)
        assert ask(url, "SELECT 1") == 1
        assert postmaster(home) == server


def test_a_killed_server_recovers_what_was_committed(home: Path) -> None:
    server = EmbeddedServer(home)
    url = server.acquire()
    ask(url, "CREATE TABLE kept AS SELECT 42 AS answer")
    kill(postmaster(home))
    with EmbeddedServer(home):
        assert ask(url, "SELECT answer FROM kept") == 42
    kill(postmaster(home))
    server.acquire()  # again: it heals
    assert ask(url, "SELECT answer FROM kept") == 42
    revived = postmaster(home)
    server.release()
    assert gone(revived)


def test_restart_waits_for_a_backend_that_outlives_its_killed_server(home: Path) -> None:
    def work() -> None:
        with suppress(psycopg2.OperationalError):  # its answer finds the server dead
            ask(url, "SELECT count(*) FROM generate_series(1, 700) a, generate_series(1, 30000) b")

    with EmbeddedServer(home) as url:
        busy = "SELECT pid FROM pg_stat_activity WHERE query ~ '^SELECT count' AND state = 'active'"
        worker = threading.Thread(target=work)
        worker.start()
        wait_for(lambda: ask(url, busy))
        backend = psutil.Process(int(str(ask(url, busy))))
        kill(postmaster(home))
        assert backend.is_running()
        EmbeddedServer(home).acquire()
        assert gone(backend)
        worker.join()
    assert "pre-existing shared memory block" in (home / "postgres.log").read_text()


def test_a_foreign_process_with_the_servers_pid_is_neither_believed_nor_signalled(
    home: Path,
) -> None:
    server = EmbeddedServer(home)
    server.acquire()
    kill(postmaster(home))
    user = (home / "postgres").stat().st_uid
    files = home / "postgres" / "postmaster.pid", server.socket / ".s.PGSQL.5432.lock"
    left = [file.read_text().split("\n", 1)[1] for file in files]
    with subprocess.Popen(["sleep", "60"], user=user) as foreign:
        for pid in (foreign.pid, os.getpid()):
            for file, rest in zip(files, left, strict=True):
                file.write_text(f"{pid}\n{rest}")
            server.release()
            assert foreign.poll() is None
            assert ask(server.acquire(), "SELECT 1") == 1
            kill(postmaster(home))
        foreign.kill()


def test_a_zombie_with_the_servers_pid_is_not_believed(home: Path) -> None:
    with EmbeddedServer(home):
        pass
    with subprocess.Popen(["true"], user=(home / "postgres").stat().st_uid) as zombie:
        wait_for(lambda: psutil.Process(zombie.pid).status() == psutil.STATUS_ZOMBIE)
        (home / "postgres" / "postmaster.pid").write_text(f"{zombie.pid}\n{home}/postgres\n")
        with EmbeddedServer(home) as url:
            assert ask(url, "SELECT 1") == 1


def test_processes_that_come_at_once_to_an_empty_home_start_one_server(home: Path) -> None:
    users = [start_user(home) for _ in range(4)]
    for user in users:
        with user:
            assert user.communicate(timeout=WAIT_LIMIT_S) == ("ready\n", "")
    assert starts(home) >= 1
    assert not list(home.glob("postgres.new-*"))
    assert not (home / "postgres" / "postmaster.pid").exists()


def test_users_that_wait_for_one_another_share_one_server(home: Path) -> None:
    users = [start_user(home) for _ in range(4)]
    for user in users:
        assert user.stdout
        assert user.stdout.readline() == "ready\n"
    server = postmaster(home)
    for user in users:
        with user:
            assert server.is_running()
            assert user.communicate(timeout=WAIT_LIMIT_S) == ("", "")
    assert gone(server)
    assert starts(home) == 1


def test_users_that_come_and_go_at_once_never_fail(home: Path) -> None:
    users = [start_user(home, BUSY_USER) for _ in range(4)]
    for user in users:
        with user:
            assert user.communicate(timeout=WAIT_LIMIT_S) == ("", "")
            assert user.returncode == 0
    assert not (home / "postgres" / "postmaster.pid").exists()


def test_server_recovers_from_users_killed_at_random_moments(home: Path) -> None:
    moments = random.Random(7)
    for _ in range(12):
        with start_user(home) as user:
            time.sleep(moments.uniform(0.05, 0.8))
            user.kill()
    for _ in range(2):  # an initdb that outlived its user may leave a folder to the next start
        with EmbeddedServer(home) as url:
            assert ask(url, "SELECT 1") == 1
            server = postmaster(home)
        assert gone(server)
    assert not list(home.glob("postgres.new-*"))


def test_killed_initdb_is_repeated(home: Path) -> None:
    with start_user(home) as user:
        wait_for(lambda: list(home.glob("postgres.new-*/PG_VERSION")))
        for process in (psutil.Process(user.pid), *psutil.Process(user.pid).children(True)):
            with suppress(psutil.NoSuchProcess):  # initdb's own come and go
                process.kill()
    assert list(home.glob("postgres.new-*"))
    with EmbeddedServer(home) as url:
        assert ask(url, "SELECT 1") == 1
        assert not list(home.glob("postgres.new-*"))


@pytest.mark.parametrize("name", ["deep/" * 30, "a b,c'd\"$(false)`e;ё%20", "a" * 70])
def test_home_may_have_any_path(home: Path, name: str) -> None:
    place = home / name
    with EmbeddedServer(place) as url:
        assert ask(url, "SELECT 1") == 1
        (socket,) = {Path(c.laddr) for c in postmaster(place).net_connections("unix") if c.laddr}
    assert len(os.fsencode(socket)) < 104
    assert not socket.parent.exists()


def test_a_socket_folder_of_somebody_else_is_not_trusted(home: Path, tmp_path: Path) -> None:
    home.mkdir()
    server = EmbeddedServer(home)
    server.socket.symlink_to(tmp_path)
    with pytest.raises(EmbeddedServerError, match="belongs to another user: remove it"):
        server.acquire()
    server.socket.unlink()


def test_data_of_another_major_version_is_refused_with_a_remedy(home: Path) -> None:
    (home / "postgres").mkdir(parents=True)
    (home / "postgres" / "PG_VERSION").write_text("15\n")
    with pytest.raises(EmbeddedServerError, match=r"PostgreSQL 15.*move the folder away"):
        EmbeddedServer(home).acquire()


def test_a_start_that_fails_shows_the_log_and_a_remedy(home: Path) -> None:
    with EmbeddedServer(home):
        pass
    (home / "postgres" / "global" / "pg_control").write_bytes(b"\0" * 8192)
    with pytest.raises(EmbeddedServerError, match=r"does not start(.|\n)*FATAL") as caught:
        EmbeddedServer(home).acquire()
    assert "CATLOG_DATABASE_URL" in str(caught.value)


def test_server_that_does_not_respond_in_time_is_reported(home: Path) -> None:
    with EmbeddedServer(home):
        server = postmaster(home)
        server.suspend()
        try:
            with pytest.raises(EmbeddedServerError, match=rf"after 1 s \(process {server.pid}\)"):
                EmbeddedServer(home, start_timeout=1).acquire()
        finally:
            server.resume()


def test_a_home_that_cannot_be_written_is_refused_with_a_remedy(home: Path) -> None:
    home.write_text("a file")
    with pytest.raises(EmbeddedServerError, match="choose another CATLOG_HOME"):
        EmbeddedServer(home).acquire()


def test_long_server_log_is_shortened_at_the_next_start(home: Path) -> None:
    with EmbeddedServer(home):
        pass
    with (home / "postgres.log").open("a") as log:
        log.write("x" * MAX_LOG_BYTES)
    with EmbeddedServer(home):
        assert (home / "postgres.log").stat().st_size < MAX_LOG_BYTES
