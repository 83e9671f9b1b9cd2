"""`scrapy up --wait` and `scrapy serve --wait`: ready when they return, and stopped by --stop."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from catlog_scrapy.commands.background import Background
from catlog_scrapy.readiness import NOTIFY_SOCKET, Readiness
from tests.support.embedded import end_servers, gone
from tests.support.project import Project
from tests.support.waiting import free_port

CONFIGURATION = """
[settings]
default = shop.settings

[scrapyd]
application = catlog_scrapy.fleet.app.application
"""

# Process that holds the lock of its pid file some time before it writes its pid.
STARTING = """
import os, sys, time
from pathlib import Path
from catlog_scrapy.file_locks import open_lock, try_exclusive
path = Path(sys.argv[1])
path.write_text("")
assert try_exclusive(open_lock(path))
print("locked", flush=True)
time.sleep(0.5)
path.write_text(str(os.getpid()))
time.sleep(600)
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """Return a project on the embedded server; stop its background processes at the end."""
    project = Project(tmp_path, None)
    project.write("scrapy.cfg", CONFIGURATION)
    project.write("shop/providers/__init__.py", "")
    yield project
    for name in ("up", "serve"):
        project.scrapy(name, "--stop", code=None)
    end_servers(tmp_path)


def answer(url: str) -> object:
    with urllib.request.urlopen(url, timeout=60) as response:
        return json.load(response)


def background(project: Project, name: str) -> psutil.Process:
    return psutil.Process(int((project.folder / ".catlog" / f"{name}.pid").read_text()))


def test_up_returns_when_node_and_api_respond_and_stop_ends_both(project: Project) -> None:
    port = free_port()
    out = project.scrapy("up", "--wait", "--port", str(port), "--api-port", "0")
    node, api, docs = (word.rstrip(",") for word in out.split() if word.startswith("http://"))
    assert node == f"http://127.0.0.1:{port}"
    assert answer(f"{node}/daemonstatus.json")["status"] == "ok"  # type: ignore[index]
    assert answer(f"{api}/readyz") == {"status": "ok"}
    assert docs == f"{api}/docs"
    up = background(project, "up")
    assert f"process {up.pid}, log {project.folder}/.catlog/up.log; scrapy up --stop" in out
    assert os.getsid(up.pid) == up.pid
    processes = [up, *up.children(recursive=True)]
    assert len(processes) >= 3
    again = project.scrapy("up", "--wait", code=2)
    assert f"scrapy up already runs in the background, as process {up.pid}; stop it" in again
    assert "scrapy up has stopped" in project.scrapy("up", "--stop")
    assert all(gone(process) for process in processes)
    assert not (project.folder / ".catlog" / "postgres" / "postmaster.pid").exists()
    assert "does not run in the background" in project.scrapy("up", "--stop")


def test_up_that_cannot_start_shows_why(project: Project) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        out = project.scrapy("up", "--wait", "--api-port", "0", "--port", port, code=2)
    assert "scrapy up: it did not start; the end of its log, " in out
    assert "choose another http_port" in out
    assert "--port of scrapy up" in out
    assert "the node ended with exit status 1" in out
    assert not (project.folder / ".catlog" / "postgres" / "postmaster.pid").exists()


def test_serve_returns_when_it_responds_and_restarts_a_killed_server(project: Project) -> None:
    for _ in range(2):
        out = project.scrapy("serve", "--wait", "--port", "0")
        [api] = (word for word in out.split() if word.startswith("http://"))
        assert answer(f"{api}/readyz") == {"status": "ok"}
        server = background(project, "serve")
        server.kill()
        assert gone(server)
    assert "does not run in the background" in project.scrapy("serve", "--stop")


def test_interrupted_wait_leaves_no_background_process(project: Project) -> None:
    waiting = project.start("serve", "--wait", "--port", "0")
    pid_file = project.folder / ".catlog" / "serve.pid"
    while waiting.poll() is None and not (pid_file.exists() and pid_file.read_text()):
        pass
    server = psutil.Process(int(pid_file.read_text()))
    waiting.send_signal(signal.SIGINT)
    waiting.communicate()
    assert waiting.returncode in (0, 130)
    assert waiting.returncode == 0 or gone(server)


def test_serve_does_not_need_the_home_folder(database_url: str, tmp_path: Path) -> None:
    home = tmp_path / "file" / "home"
    (tmp_path / "file").touch()
    readiness = Readiness()
    project = Project(
        tmp_path, database_url, CATLOG_HOME=str(home), **{NOTIFY_SOCKET: readiness.address}
    )
    project.write("shop/providers/__init__.py", "")
    for option in ("--wait", "--stop"):
        out = project.scrapy("serve", option, code=2)
        assert f"CATLOG_HOME {home} cannot hold serve.pid (Not a directory); make" in out
    server = project.start("serve", "--port", "0")
    assert (readiness.wait(lambda: server.poll() is not None) or "").startswith("http://")
    server.send_signal(signal.SIGINT)
    server.communicate()
    readiness.close()


def test_stop_does_not_need_a_node_in_scrapy_cfg(tmp_path: Path) -> None:
    project = Project(tmp_path, None)
    assert "does not run in the background" in project.scrapy("up", "--stop")
    assert "add to scrapy.cfg" in project.scrapy("up", "--wait", code=2)


def test_stop_waits_for_the_pid_of_a_starting_process(tmp_path: Path) -> None:
    command = [sys.executable, "-c", STARTING, tmp_path / "up.pid"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as starting:
        assert starting.stdout
        assert starting.stdout.readline() == "locked\n"
        assert Background(tmp_path, "up").stop(60) == "scrapy up has stopped"
        assert starting.wait() == -signal.SIGTERM


def test_stop_never_signals_the_former_pid_while_a_process_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid_file = tmp_path / "up.pid"
    with subprocess.Popen(["sleep", "600"]) as foreign:
        pid_file.write_text(str(foreign.pid))

        def before_fork() -> Readiness:
            assert pid_file.read_text() == ""
            raise BlockingIOError

        monkeypatch.setattr("catlog_scrapy.commands.background.Readiness", before_fork)
        with pytest.raises(BlockingIOError):
            Background(tmp_path, "up").start()
        foreign.kill()
