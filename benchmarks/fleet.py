"""Nodes to measure: catlog's and scrapyd's own, each a `scrapyd` process on loopback."""

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

from scrapy.settings import Settings
from sqlalchemy import Engine, text

from benchmarks.common import ROOT, Server
from catlog_scrapy.declarations import apply

PROJECT = "bench"
SPIDERS = ("one", "visit")
SETTINGS, STOCK_SETTINGS = "benchmarks.project.fleet", "benchmarks.project.stock"
# Seconds until a node must have started, or ended; and until an answer must be there.
PATIENCE = 60.0


@dataclass(frozen=True)
class Node:
    """A scrapyd that listens on *port*, in *folder*."""

    process: "subprocess.Popen[bytes]"
    port: int
    folder: Path

    def ask(self, method: str, service: str, **fields: str) -> dict[str, Any]:
        """What scrapyd's *service* answers. Raises RuntimeError where it is not `ok`."""
        words = urlencode(fields)
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)) as connection:
            if method == "POST":
                connection.request(method, f"/{service}.json", words, form)
            else:
                connection.request(method, f"/{service}.json?{words}")
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
        if answer["status"] != "ok":
            raise RuntimeError(f"{service}: {answer}")
        return answer

    def schedule(self, spider: str, **arguments: str) -> str:
        """Queue a job; its id."""
        return str(
            self.ask("POST", "schedule", project=PROJECT, spider=spider, **arguments)["jobid"]
        )

    def is_idle(self) -> bool:
        """Whether nothing waits or runs."""
        now = self.ask("GET", "daemonstatus")
        return not now["pending"] and not now["running"]

    @property
    def log(self) -> str:
        """The last of what the node itself has said."""
        return (self.folder / "node.log").read_text()[-2000:]


@contextmanager
def catlog_node(server: Server, engine: Engine, **options: object) -> Iterator[Node]:
    """A node of catlog with the *options* of scrapyd, whose project is declared and imported."""
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
    """scrapyd as it comes, with its *options*; it keeps all logs."""
    with _node(server, STOCK_SETTINGS, {"jobs_to_keep": 100_000, **options}, {}) as node:
        yield node


@contextmanager
def _node(
    server: Server, settings: str, options: dict[str, object], environment: dict[str, str]
) -> Iterator[Node]:
    server.made += 1
    folder = server.folder / f"node-{server.made}"
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
        wait_until(lambda: _is_ready(node), PATIENCE, "a node that is ready")
        yield node
    except BaseException as error:
        error.add_note(f"The node said: {node.log}")
        raise
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _is_ready(node: Node) -> bool:
    """Whether it answers, and has imported its project once."""
    if node.process.poll() is not None:
        raise RuntimeError(f"the node ended with {node.process.returncode}")
    try:
        return set(SPIDERS) <= set(node.ask("GET", "listspiders", project=PROJECT)["spiders"])
    except OSError:
        return False


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait_until(
    is_so: Callable[[], bool], patience: float, what: str, *, every: float = 0.05
) -> None:
    """Return as soon as *is_so*. Raises TimeoutError after *patience* seconds."""
    end = time.monotonic() + patience
    while not is_so():
        if time.monotonic() > end:
            raise TimeoutError(f"no {what} within {patience:g} s")
        time.sleep(every)


def declare(server: Server, engine: Engine) -> None:
    """Make each of SPIDERS an operation, in a scheme of its own, in an empty database."""
    folder = server.folder / "fleet"
    (folder / "providers").mkdir(parents=True, exist_ok=True)
    schemes = (
        f'[[scheme]]\nname = "{name}"\n[[scheme.operation]]\nname = "{name}"\n'
        f'kind = "{name}_products"\nkey = ["vendor", "sku"]\n'
        for name in SPIDERS
    )
    (folder / "providers" / "shop.toml").write_text(
        "\n".join(['[provider]\nname = "shop"\n', *schemes])
    )
    settings = Settings()
    settings.setmodule(SETTINGS)
    settings.set("CATLOG_PROVIDERS", str(folder / "providers"))
    settings.set("CATLOG_VIEWS", str(folder / "views"))
    apply(engine, settings)


def count_loaded(engine: Engine) -> int:
    """How many catalogs are loaded. Raises RuntimeError where one has failed."""
    with engine.connect() as connection:
        query = "SELECT state, count(*) FROM catlog.catalog GROUP BY state"
        states = {str(state): int(count) for state, count in connection.execute(text(query))}
    if states.get("failed"):
        raise RuntimeError(f"{states['failed']} catalogs failed")
    return states.get("loaded", 0)
