"""Long-running commands on the embedded server: they restart it, and stop it when they end."""

import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from sqlalchemy import Engine, exc

from catlog_scrapy.db.embedded import EmbeddedServer
from catlog_scrapy.db.engine import make_engine
from catlog_scrapy.file_locks import locked
from catlog_scrapy.store.queue import catalogs
from tests.support.embedded import end_servers, gone, kill, postmaster, starts
from tests.support.forked import Command
from tests.support.maker import answers, write_maker
from tests.support.project import Project
from tests.support.waiting import free_port, rows, until

BEGUN = "SELECT 1 FROM catlog.instance_attempt WHERE outcome IS NULL"
COMMANDS = ["work", "schedule", "serve", "node", "up", "load"]


class Shop:
    """Project on an embedded server, its running processes, and an engine on its database."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.project = Project(folder, None, CATLOG_HOME=str(self.home), CATLOG_GRACE="1")
        write_maker(self.project)
        with EmbeddedServer(self.home) as self.url:
            self.project.scrapy("apply")
        self.processes: list[Command | subprocess.Popen[bytes]] = []
        self.node_port, self.api_port = free_port(), free_port()

    def start(self, name: str) -> "Command | subprocess.Popen[bytes]":
        """Start a long-running command, and wait until it works."""
        started: Command | subprocess.Popen[bytes]
        environment = {**self.project.environment, "SCRAPYD_HTTP_PORT": str(self.node_port)}
        if name == "node":
            started = subprocess.Popen(
                [sys.executable, "-m", "scrapyd"],
                cwd=self.project.folder,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        else:
            arguments = {
                "serve": ["--port", str(self.api_port)],
                "up": ["--port", str(self.node_port), "--api-port", str(self.api_port)],
                "load": ["maker/things", "-a", f"hold={self.hold}"],
            }
            started = self.project.start(name, *arguments.get(name, []))
        self.processes.append(started)
        return started

    @property
    def hold(self) -> Path:
        """Return the file that `load` waits for."""
        return self.project.folder / "hold"

    def works(self, name: str) -> None:
        """Wait until the command has done its work, or `load` has begun."""
        if name == "load":
            with self.engine() as engine:
                until(lambda: succeeds(engine, BEGUN))
        if name in ("work", "node", "up"):
            self.loads_a_catalog()
        if name in ("schedule", "up"):
            self.makes_a_due_catalog()
        if name in ("serve", "up"):
            until(lambda: answers(f"http://127.0.0.1:{self.api_port}/readyz"))

    def loads_a_catalog(self) -> None:
        """Queue a catalog, and wait until it is loaded."""
        with self.engine() as engine:
            made = catalogs.create(engine, "maker", "things", operation=None, arguments={})
            state = "SELECT 1 FROM catlog.catalog WHERE id = :made AND state = 'loaded'"
            until(lambda: rows(engine, state, made=made))

    def makes_a_due_catalog(self) -> None:
        """Make the schedule due, and wait for its catalog."""
        with self.engine() as engine:
            due = """UPDATE catlog.schedule SET next_due_at = date_trunc('second', now())
                     RETURNING next_due_at"""
            ((due_at,),) = rows(engine, due)
            made = "SELECT 1 FROM catlog.catalog WHERE due_at = :due_at"
            until(lambda: rows(engine, made, due_at=due_at))

    @contextmanager
    def engine(self) -> Iterator[Engine]:
        """Return an engine on the database, which a command has started or is about to start."""
        engine = make_engine(self.url)
        try:
            until(lambda: succeeds(engine, "SELECT 1"))
            yield engine
        finally:
            engine.dispose()

    def end(self) -> None:
        """Kill what still runs."""
        for process in self.processes:
            with suppress(psutil.NoSuchProcess):
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
            process.kill()
            process.communicate()
        end_servers(self.project.folder)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(tmp_path)
    yield shop
    shop.end()


def is_alive(shop: Shop) -> bool:
    with suppress(FileNotFoundError, IndexError, psutil.NoSuchProcess):
        return postmaster(shop.home).status() != psutil.STATUS_ZOMBIE
    return False


def ends_server(shop: Shop, end: Callable[[psutil.Process], None]) -> None:
    """End the server by *end*, and wait for the next server, which only the command can start."""
    before = starts(shop.home)
    server = postmaster(shop.home)
    end(server)
    assert gone(server)
    until(lambda: starts(shop.home) == before + 1)


@pytest.mark.parametrize("name", ["work", "schedule", "serve", "node", "up"])
def test_command_restarts_a_killed_embedded_server(shop: Shop, name: str) -> None:
    shop.start(name)
    until(lambda: is_alive(shop))
    shop.works(name)
    ends_server(shop, kill)
    shop.works(name)
    ends_server(shop, kill)
    shop.works(name)


def test_load_goes_on_after_its_embedded_server_was_killed(shop: Shop) -> None:
    load = shop.start("load")
    until(lambda: is_alive(shop))
    shop.works("load")
    ends_server(shop, kill)
    shop.hold.touch()
    assert isinstance(load, Command)
    out, err = load.communicate()
    assert load.returncode == 0, out + err
    assert "the embedded PostgreSQL had ended; it answers again after" in err
    with EmbeddedServer(shop.home), shop.engine() as engine:
        assert rows(engine, "SELECT attempt, outcome FROM catlog.instance_attempt") == [(1, "done")]


def succeeds(engine: Engine, sql: str) -> bool:
    try:
        return bool(rows(engine, sql))
    except exc.OperationalError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_command_restarts_an_embedded_server_that_a_signal_ended(shop: Shop, number: int) -> None:
    shop.start("work")
    until(lambda: is_alive(shop))
    shop.loads_a_catalog()
    ends_server(shop, lambda server: server.send_signal(number))
    shop.loads_a_catalog()


def test_embedded_server_is_restarted_once_by_many_commands(shop: Shop) -> None:
    for name in ("work", "schedule", "serve", "node"):
        shop.start(name)
        shop.works(name)
    ends_server(shop, kill)
    before = starts(shop.home)
    for name in ("work", "schedule", "serve", "node"):
        shop.works(name)
    assert starts(shop.home) == before


def test_embedded_server_that_cannot_start_is_tried_again(shop: Shop) -> None:
    worker = shop.start("work")
    until(lambda: is_alive(shop))
    shop.loads_a_catalog()
    version = shop.home / "postgres" / "PG_VERSION"
    right = version.read_text()
    with locked(EmbeddedServer(shop.home).start_lock):
        kill(postmaster(shop.home))
        version.write_text("9\n")
    assert isinstance(worker, Command)
    until(lambda: "was made by PostgreSQL 9" in worker.written()[1])
    version.write_text(right)
    shop.loads_a_catalog()
    assert worker.written()[1].count("was made by PostgreSQL 9") == 1


def test_command_does_not_make_a_removed_home_anew(shop: Shop) -> None:
    scheduler = shop.start("schedule")
    until(lambda: is_alive(shop))
    shop.makes_a_due_catalog()
    server = postmaster(shop.home)
    shop.home.rename(shop.home.with_name("moved"))
    kill(server)
    assert isinstance(scheduler, Command)
    until(lambda: "the database is unavailable" in "".join(scheduler.written()))
    assert not shop.home.exists()
    scheduler.terminate()
    scheduler.communicate()
    assert not (shop.home / "postgres").exists()


def exit_code(process: "Command | subprocess.Popen[bytes]") -> int | None:
    """Wait for the end, and return the exit code."""
    process.communicate()
    return process.returncode


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_command_and_its_embedded_server(shop: Shop, name: str, number: int) -> None:
    process = shop.start(name)
    until(lambda: is_alive(shop))
    shop.works(name)
    server = postmaster(shop.home)
    process.send_signal(number)
    # A load that was stopped is not loaded.
    assert exit_code(process) == (1 if name == "load" else 0)
    assert gone(server)


@pytest.mark.parametrize("name", COMMANDS)
def test_sigterm_while_command_starts_stops_its_embedded_server(shop: Shop, name: str) -> None:
    process = shop.start(name)
    until(lambda: is_alive(shop))
    server = postmaster(shop.home)
    process.send_signal(signal.SIGTERM)
    assert exit_code(process) in ({1, -signal.SIGTERM} if name == "load" else {0})
    assert gone(server)


def test_sigterm_ends_a_short_command_by_the_signal_and_stops_its_server(shop: Shop) -> None:
    query = shop.project.start("sql", "select pg_sleep(3)")
    until(lambda: is_alive(shop))
    server = postmaster(shop.home)
    query.terminate()
    assert exit_code(query) == -signal.SIGTERM
    assert gone(server)


def test_signal_to_all_processes_of_up_is_no_failure(shop: Shop) -> None:
    up = shop.start("up")
    until(lambda: is_alive(shop))
    shop.works("up")
    server = postmaster(shop.home)
    for process in [psutil.Process(up.pid), *psutil.Process(up.pid).children()]:
        process.terminate()
    assert isinstance(up, Command)
    out, err = up.communicate()
    assert (up.returncode, gone(server)) == (0, True), out + err


def test_node_that_cannot_start_stops_its_embedded_server(shop: Shop) -> None:
    with socket.create_server(("127.0.0.1", shop.node_port)):
        node = shop.start("node")
        until(lambda: is_alive(shop))
        server = postmaster(shop.home)
        assert exit_code(node) == 1
    assert gone(server)


def test_ignored_sighup_stays_ignored(shop: Shop) -> None:
    scheduler = subprocess.Popen(
        ["nohup", sys.executable, "-m", "scrapy", "schedule"],
        cwd=shop.project.folder,
        env=shop.project.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    shop.processes.append(scheduler)
    until(lambda: is_alive(shop))
    shop.works("schedule")
    scheduler.send_signal(signal.SIGHUP)
    shop.works("schedule")
    scheduler.terminate()
    assert exit_code(scheduler) == 0
