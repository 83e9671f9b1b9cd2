"""Nodes to measure: a catlog node and a stock scrapyd, each a process on loopback."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psutil
from scrapy.settings import Settings
from sqlalchemy import Engine, text

from benchmarks.common import ROOT, Server
from catlog_scrapy.declarations import apply

PROJECT = "bench"
SPIDERS = ("one", "visit")
SETTINGS, STOCK_SETTINGS = "benchmarks.project.fleet", "benchmarks.project.stock"
# Timeout of a node's start, of its end, and of a response.
TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Node:
    """scrapyd process that listens on *port*, with files in *folder*."""

    process: "subprocess.Popen[bytes]"
    port: int
    folder: Path

    def ask(self, method: str, service: str, **fields: str) -> dict[str, Any]:
        """Call a *service* of scrapyd. Raises RuntimeError for a status other than `ok`."""
        words = urlencode(fields)
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)) as connection:
            if method == "POST":
                connection.request(method, f"/{service}.json", words, form)
            else:
                connection.request(method, f"/{service}.json?{words}")
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
        if answer["status"] != "ok":
            raise RuntimeError(f"{service}: {answer}")
        return answer

    def schedule(self, spider: str, **arguments: str) -> str:
        """Schedule a job and return its id."""
        return str(
            self.ask("POST", "schedule", project=PROJECT, spider=spider, **arguments)["jobid"]
        )

    def is_idle(self) -> bool:
        """Return whether no job waits or runs."""
        now = self.ask("GET", "daemonstatus")
        return not now["pending"] and not now["running"]

    @property
    def log(self) -> str:
        """The end of the node's log."""
        return (self.folder / "node.log").read_text()[-2000:]


@contextmanager
def catlog_node(server: Server, engine: Engine, **options: object) -> Iterator[Node]:
    """Start a catlog node with *options* of scrapyd, with its project declared and imported."""
    declare(server, engine)
    with _node(
        server,
        SETTINGS,
        {"application": "catlog_scrapy.fleet.app.application", **options},
        {
            "CATLOG_DATABASE_URL": engine.url.render_as_string(hide_password=False),
            "CATLOG_PROVIDERS": str(server.folder / "fleet" / "providers"),
        },
    ) as node:
        yield node


@contextmanager
def stock_node(server: Server, **options: object) -> Iterator[Node]:
    """Start a stock scrapyd with *options*, which keeps all logs."""
    with _node(server, STOCK_SETTINGS, {"jobs_to_keep": 100_000, **options}, {}) as node:
        yield node


@contextmanager
def _node(
    server: Server, settings: str, options: dict[str, object], environment: dict[str, str]
) -> Iterator[Node]:
    folder = server.folder / f"node-{server.number()}"
    folder.mkdir()
    lines = [f"{name} = {value}" for name, value in options.items()]
    (folder / "scrapy.cfg").write_text(
        "\n".join(["[settings]", f"{PROJECT} = {settings}", "[scrapyd]", *lines]) + "\n"
    )
    port = free_port()
    with (folder / "node.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "scrapyd"],
            cwd=folder,
            env=os.environ
            | {
                "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
                "SCRAPYD_BIND_ADDRESS": "127.0.0.1",
                "SCRAPYD_HTTP_PORT": str(port),
            }
            | environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    node = Node(process, port, folder)
    try:
        wait_until(lambda: _is_ready(node), TIMEOUT_S, "node that is ready")
        yield node
    except BaseException as error:
        error.add_note(f"End of the node's log: {node.log}")
        raise
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _is_ready(node: Node) -> bool:
    """Return whether the node answers and has imported its project."""
    if node.process.poll() is not None:
        raise RuntimeError(f"the node ended with {node.process.returncode}")
    try:
        return set(SPIDERS) <= set(node.ask("GET", "listspiders", project=PROJECT)["spiders"])
    except OSError:
        return False


def free_port() -> int:
    """Return a free port of loopback."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait_until(
    condition: Callable[[], bool], timeout_s: float, what: str, *, every: float = 0.05
) -> None:
    """Return as soon as *condition* is true. Raises TimeoutError after *timeout_s*."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"no {what} within {timeout_s:g} s")
        time.sleep(every)


def declare(server: Server, engine: Engine) -> None:
    """Declare each of SPIDERS as the operation of its own scheme."""
    folder = server.folder / "fleet"
    (folder / "providers").mkdir(parents=True, exist_ok=True)
    schemes = (
        f'[[scheme]]\nname = "{name}"\n[[scheme.operation]]\nname = "{name}"\n'
        f'kind = "{name}_products"\nkey = ["vendor", "sku"]\n'
        'fields = { vendor = "text", sku = "text" }\n'
        for name in SPIDERS
    )
    (folder / "providers" / "shop.toml").write_text(
        "\n".join(['[provider]\nname = "shop"\nbase_url = "http://127.0.0.1"\n', *schemes])
    )
    settings = Settings()
    settings.setmodule(SETTINGS)
    settings.set("CATLOG_PROVIDERS", str(folder / "providers"))
    settings.set("CATLOG_VIEWS", str(folder / "views"))
    settings.set("CATLOG_RESOURCES", str(folder / "resources.toml"), "default")
    apply(engine, settings)


def cpu_of(node: Node) -> list[float]:
    """Return the CPU seconds of each process of a node, with its children that have ended."""
    main = psutil.Process(node.process.pid)
    times = [process.cpu_times() for process in [main, *main.children(recursive=True)]]
    return [t.user + t.system + t.children_user + t.children_system for t in times]


def count_loaded(engine: Engine) -> int:
    """Return the number of loaded catalogs. Raises RuntimeError for failed catalogs."""
    with engine.connect() as connection:
        query = "SELECT state, count(*) FROM catlog.catalog GROUP BY state"
        states = {str(state): int(count) for state, count in connection.execute(text(query))}
    if states.get("failed"):
        raise RuntimeError(f"{states['failed']} catalogs failed")
    return states.get("loaded", 0)
