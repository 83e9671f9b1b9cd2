"""Shared code of the benchmarks: result lines, a PostgreSQL server, crawls of a project."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scrapy.settings import Settings
from sqlalchemy import Engine, text

from catlog_scrapy.db.embedded import EmbeddedServer
from catlog_scrapy.db.engine import make_engine
from catlog_scrapy.db.migrations import upgrade
from catlog_scrapy.declarations import apply

ROOT = Path(__file__).parent.parent
SETTINGS = "benchmarks.project.settings"
PROVIDER, SCHEME = "shop", "products"


@dataclass(frozen=True)
class Result:
    """Result of a benchmark. `target` is `<=` or `>=` and a number."""

    name: str
    ratio: float
    target: str

    @property
    def ok(self) -> bool:
        """True if the ratio reaches the target."""
        reach = float(self.target[2:])
        return self.ratio <= reach if self.target.startswith("<=") else self.ratio >= reach

    def __str__(self) -> str:
        return f"bench {self.name} {self.ratio:.3g} {self.target} {'ok' if self.ok else 'short'}"


def note(what: str) -> None:
    """Print a comment line about a measurement."""
    print(f"# {what}", flush=True)


def seconds(work: Callable[[], object]) -> float:
    """Return the seconds that *work* takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def alternate(
    repetitions: int, measure_catlog: Callable[[], float], measure_peer: Callable[[], float]
) -> tuple[float, float]:
    """Return the medians of both times, measured in turn under the same load."""
    catlog, peer = [], []
    for _ in range(repetitions):
        peer.append(measure_peer())
        catlog.append(measure_catlog())
        note(f"catlog {catlog[-1]:.3f} s, peer {peer[-1]:.3f} s")
    return statistics.median(catlog), statistics.median(peer)


class Server:
    """PostgreSQL server in a temporary folder, with a new database for each measurement."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.made = 0

    @contextmanager
    def database(self) -> Iterator[Engine]:
        """Create a database at the head revision, and drop it at the end."""
        self.made += 1
        name = f"bench_{self.made}"
        admin = make_engine(self.url.replace("/catlog?", "/postgres?"))
        with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            # A checkpoint left over by a former measurement would run during this measurement.
            connection.execute(text("SET statement_timeout = 0"))
            connection.execute(text("CHECKPOINT"))
            connection.execute(text(f"CREATE DATABASE {name} TEMPLATE catlog"))
            engine = make_engine(self.url.replace("/catlog?", f"/{name}?"))
            yield engine
            engine.dispose()
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        admin.dispose()


@contextmanager
def open_server() -> Iterator[Server]:
    """Start a server with a migrated template database."""
    with (
        tempfile.TemporaryDirectory(prefix="catlog-bench-") as folder,
        EmbeddedServer(Path(folder) / "home") as url,
    ):
        template = make_engine(url)
        upgrade(template)
        template.dispose()
        yield Server(Path(folder), url)


@dataclass(frozen=True)
class Crawled:
    """Measurements of one crawl, by the project's stopwatch in the crawl's process.

    `seconds` is the time from `spider_opened` to `engine_stopped`, `opened_at` the former as Unix
    time, `peak` the largest resident memory of the process in MiB.
    """

    seconds: float
    opened_at: float
    peak: float


def scrapy(server: Server, engine: Engine, *words: str) -> None:
    """Run `scrapy` *words* in the benchmarks' project. Raises RuntimeError."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "SCRAPY_SETTINGS_MODULE": SETTINGS,
        "CATLOG_DATABASE_URL": engine.url.render_as_string(hide_password=False),
        "CATLOG_PROVIDERS": str(server.folder / "providers"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "scrapy", *words],
        cwd=server.folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"scrapy {' '.join(words)} failed:\n{done.stdout[-4000:]}")


def crawl(server: Server, engine: Engine, spider: str, items: int, *words: str) -> Crawled:
    """Run `scrapy crawl` *spider*, which yields *items*, with the same log level for both sides.

    *words* are further arguments of the command.
    """
    seen = server.folder / "stopwatch.json"
    settings = {"STOPWATCH": seen, "ITEMS": items, "LOG_LEVEL": "INFO"}
    options = [word for name, value in settings.items() for word in ("-s", f"{name}={value}")]
    scrapy(server, engine, "crawl", spider, *options, *words)
    return Crawled(**json.loads(seen.read_text()))


def declare(server: Server, engine: Engine, spider: str) -> None:
    """Declare *spider* as the only operation of the scheme `shop/products`."""
    folder = server.folder / "providers"
    folder.mkdir(exist_ok=True)
    (folder / "shop.toml").write_text(
        f'[provider]\nname = "{PROVIDER}"\n\n'
        f'[[scheme]]\nname = "{SCHEME}"\noperations = ["{spider}"]\n'
    )
    settings = Settings()
    settings.setmodule(SETTINGS)
    settings.set("CATLOG_PROVIDERS", str(folder))
    settings.set("CATLOG_VIEWS", str(server.folder / "views"))
    apply(engine, settings)


def run_sql(engine: Engine, *statements: str) -> None:
    """Run *statements* one after the other, each committed, without a timeout."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SET statement_timeout = 0"))
        for statement in statements:
            connection.execute(text(statement))
        connection.execute(text("RESET statement_timeout"))
