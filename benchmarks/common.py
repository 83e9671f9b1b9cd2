"""Shared code of the benchmarks: a PostgreSQL server, its databases, crawls of a project."""

import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from scrapy.settings import Settings
from sqlalchemy import Engine, text

from benchmarks.measuring import Cost, Meter
from catlog_scrapy.db.embedded import EmbeddedServer
from catlog_scrapy.db.engine import make_engine
from catlog_scrapy.db.migrations import upgrade
from catlog_scrapy.declarations import apply

ROOT = Path(__file__).parent.parent
SETTINGS, STOCK_SETTINGS = "benchmarks.project.settings", "benchmarks.project.without_catlog"
PROVIDER, SCHEME = "shop", "products"


@dataclass(frozen=True)
class Scale:
    """Sizes of a run: *small* ones test the benchmarks; *rows* and *rounds* replace defaults."""

    small: bool = False
    rows: int | None = None
    rounds: int | None = None

    def count(self, default: int, small: int) -> int:
        """Return the number of records to measure."""
        return self.rows or (small if self.small else default)

    def sizes(self, few: int, many: int) -> list[int]:
        """Return both sizes to compare; only *many* in a small run, whose figures say nothing."""
        return [many] if self.small else [few, many]

    def times(self, default: int = 5) -> int:
        """Return the number of rounds, whose median is printed."""
        return self.rounds or (1 if self.small else default)


class Server:
    """PostgreSQL server in a temporary folder, with a new database for each measurement."""

    def __init__(self, folder: Path, url: str, postmaster: int) -> None:
        self.folder = folder
        self.url = url
        self.meter = Meter(postmaster)
        self.log = folder / "home" / "postgres.log"
        self._numbers = itertools.count(1)
        # Databases of published products by their number, and what ends them.
        self.published: dict[int, Engine] = {}
        self.publishing = threading.Lock()
        self.ending = ExitStack()

    def number(self) -> int:
        """Return a number for a name that nothing else of this server has."""
        return next(self._numbers)

    @contextmanager
    def database(self) -> Iterator[Engine]:
        """Create a database at the head revision, and drop it at the end."""
        name = f"bench_{self.number()}"
        # A checkpoint left over by a former measurement would run during this measurement.
        self.run_sql("CHECKPOINT", f"CREATE DATABASE {name} TEMPLATE catlog")
        engine = make_engine(self.url.replace("/catlog?", f"/{name}?"))
        yield engine
        engine.dispose()
        self.run_sql(f"DROP DATABASE {name} WITH (FORCE)")

    def run_sql(self, *statements: str) -> None:
        """Run *statements* in the database `postgres`."""
        admin = make_engine(self.url.replace("/catlog?", "/postgres?"))
        run_sql(admin, *statements)
        admin.dispose()


@contextmanager
def open_server() -> Iterator[Server]:
    """Start a server with a migrated template database."""
    with tempfile.TemporaryDirectory(prefix="catlog-bench-") as folder:
        embedded = EmbeddedServer(Path(folder) / "home")
        with embedded as url:
            template = make_engine(url)
            upgrade(template)
            template.dispose()
            server = Server(Path(folder), url, embedded.pid())
            with server.ending:
                yield server


@dataclass(frozen=True)
class Crawled:
    """Measurements of one crawl, by the project's stopwatch in the crawl's process.

    `crawl` is the cost from `spider_opened` to `engine_stopped`, `load` the cost from
    `spider_opened` to the end of the process, `peak` the largest resident memory of the process
    in MiB.
    """

    crawl: Cost
    load: Cost
    peak: float


def scrapy(server: Server, engine: Engine, *words: str, settings: str = SETTINGS) -> None:
    """Run `scrapy` *words* in the benchmarks' project. Raises RuntimeError."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "SCRAPY_SETTINGS_MODULE": settings,
        "CATLOG_DATABASE_URL": engine.url.render_as_string(hide_password=False),
        "CATLOG_PROVIDERS": str(providers_folder(server, engine)),
        "CATLOG_RESOURCES": str(resources_file(server, engine)),
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


def crawl(
    server: Server,
    engine: Engine,
    spider: str,
    items: int,
    *words: str,
    settings: str = SETTINGS,
) -> Crawled:
    """Run `scrapy crawl` *spider*, which yields *items*, with the same log level for both sides.

    *words* are further arguments of the command.
    """
    seen = server.folder / f"stopwatch-{server.number()}.json"
    values = {
        "STOPWATCH": seen,
        "POSTMASTER": server.meter.postmaster,
        "ITEMS": items,
        "LOG_LEVEL": "INFO",
    }
    options = [word for name, value in values.items() for word in ("-s", f"{name}={value}")]
    scrapy(server, engine, "crawl", spider, *options, *words, settings=settings)
    found = json.loads(seen.read_text())
    return Crawled(Cost(**found["crawl"]), Cost(**found["load"]), found["peak"])


def providers_folder(server: Server, engine: Engine) -> Path:
    """Return the folder of the declarations for a database."""
    return server.folder / f"providers-{engine.url.database}"


def resources_file(server: Server, engine: Engine) -> Path:
    """Return the file of the resources of a database."""
    return server.folder / f"resources-{engine.url.database}.toml"


def declare(server: Server, engine: Engine, spider: str, resources: str = "") -> None:
    """Declare *spider* as the only operation of the scheme `shop/products`, and *resources*."""
    folder = providers_folder(server, engine)
    folder.mkdir(exist_ok=True)
    (folder / "shop.toml").write_text(
        f'[provider]\nname = "{PROVIDER}"\n\n'
        f'[[scheme]]\nname = "{SCHEME}"\noperations = ["{spider}"]\n'
    )
    resources_file(server, engine).write_text(resources)
    settings = Settings()
    settings.setmodule(SETTINGS)
    settings.set("CATLOG_PROVIDERS", str(folder))
    settings.set("CATLOG_VIEWS", str(server.folder / "views"))
    settings.set("CATLOG_RESOURCES", str(resources_file(server, engine)))
    apply(engine, settings)


def run_sql(engine: Engine, *statements: str) -> None:
    """Run *statements* one after the other, each committed, without a timeout."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SET statement_timeout = 0"))
        for statement in statements:
            connection.execute(text(statement))
        connection.execute(text("RESET statement_timeout"))


def scalar(engine: Engine, query: str) -> float:
    """Return the only value of *query*, a number."""
    with engine.connect() as connection:
        return float(connection.execute(text(query)).scalar_one())
