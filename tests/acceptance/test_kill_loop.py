"""Kills of workers, publishers, schedulers and the embedded server, with readers that never stop.

    KILL_SEED=1,2,3,4 KILL_FAULTS=75 python -m pytest -s tests/acceptance/test_kill_loop.py

After each fault a further load has to become visible. No reader may see a part of a load, no load
may count twice, and none may get stuck.
"""

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from sqlalchemy import Engine, exc

from catlog_scrapy.db.embedded import EmbeddedServer
from catlog_scrapy.db.engine import make_engine
from catlog_scrapy.store.publishing.publish import PUBLISH_LOCK
from catlog_scrapy.store.queue import catalogs
from tests.support.embedded import end_servers, postmaster
from tests.support.forked import Command
from tests.support.project import Project
from tests.support.waiting import free_port, rows, until

pytestmark = pytest.mark.slow

SEEDS = [int(seed) for seed in os.environ.get("KILL_SEED", "1").split(",")]
FAULTS = int(os.environ.get("KILL_FAULTS", "20"))
PARTS = ("north", "south")
THINGS = 400
WHOLE = len(PARTS) * THINGS
LEASE_S = 2.0
# Loads that are open at a time: they overlap.
OPEN_LOADS = 3
# Time from a fault to the next load that readers see.
MAX_PROGRESS_S = 120.0
MAX_PAUSE_S = 0.5

SPIDER = f"""
import uuid

from catlog_scrapy.records import Record
from scrapy import Spider


class Thing(Record, key=("part", "number"), view="things"):
    part: str
    number: int
    stamp: str


class Things(Spider):
    name = "things"
    record = Thing
    part: str = ""

    async def start(self):
        stamp = str(uuid.uuid4())
        for number in range({THINGS}):
            yield {{"part": self.part, "number": number, "stamp": stamp}}
"""

DECLARATION = """
[provider]
name = "maker"

[[scheme]]
name = "things"
max_errors = 50
[[scheme.operation]]
name = "north"
spider = "things"
arguments = { part = "north" }
backoff = { base = "1s", cap = "2s" }
[[scheme.operation]]
name = "south"
spider = "things"
arguments = { part = "south" }
backoff = { base = "1s", cap = "2s" }
"""

# One statement: what a reader sees at a moment.
PICTURE = """
    SELECT count(*), count(DISTINCT (part, number)), count(DISTINCT stamp),
        count(DISTINCT updated_at) FROM things"""
OPEN = "SELECT count(*) FROM catlog.catalog WHERE state IN ('waiting', 'loading', 'publishing')"
PUBLISHED = "SELECT count(*) FROM catlog.catalog WHERE state = 'loaded'"
PUBLISHING = f"""
    SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = {PUBLISH_LOCK}"""
OUTAGES = (exc.OperationalError, exc.InterfaceError, exc.InternalError)


class Reader(threading.Thread):
    """Thread that reads the view all the time, and counts what it must never see."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(daemon=True)
        self.engine = engine
        self.counts: Counter[str] = Counter()
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.is_set():
            try:
                [picture] = rows(self.engine, PICTURE)
            except OUTAGES:
                self.counts["outages"] += 1
                time.sleep(0.02)
                continue
            self.counts["reads"] += 1
            if picture[:3] not in ((WHOLE, WHOLE, len(PARTS)), (0, 0, 0)):
                self.counts[f"half visible {picture}"] += 1
            elif picture[3] > 1:
                self.counts["of two loads"] += 1


class Loop:
    """Processes of a project on an embedded server, loads, and faults at random."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.home = folder / "home"
        self.project = Project(
            folder,
            None,
            CATLOG_HOME=str(self.home),
            CATLOG_LEASE=str(LEASE_S),
            CATLOG_GRACE="1",
        )
        self.project.write("shop/spiders/things.py", SPIDER)
        self.project.write("shop/providers/maker.toml", DECLARATION)
        with EmbeddedServer(self.home) as self.url:
            self.project.scrapy("apply")
        self.engine = make_engine(self.url)
        self.reader = Reader(make_engine(self.url))
        self.port = free_port()
        self.arguments = {
            "worker one": ["work", "--concurrency", "1"],
            "worker two": ["work", "--concurrency", "1"],
            "scheduler": ["schedule"],
            "server": ["serve", "--port", str(self.port)],
        }
        self.processes: dict[str, Command] = {}
        self.faults: Counter[str] = Counter()
        self.slowest_s = 0.0
        self.sorts: dict[str, tuple[float, Callable[[], None]]] = {
            "worker killed": (3, self.kill_worker),
            "scheduler killed": (1, lambda: self.kill("scheduler")),
            "API server killed": (1, lambda: self.kill("server")),
            "publisher killed": (2, self.kill_publisher),
            "all processes killed": (0.5, self.kill_all),
            "backend killed": (1, self.kill_backend),
            "postmaster killed": (2.5, self.kill_postmaster),
            "postmaster and worker killed": (1, self.kill_postmaster_and_worker),
        }

    def supervise(self) -> None:
        """Start what does not run, as an init system does."""
        for name, arguments in self.arguments.items():
            process = self.processes.get(name)
            if process is None or process.poll() is not None:
                self.processes[name] = self.project.start(*arguments)

    def feed(self) -> None:
        """Queue loads, so that there are always some."""
        with suppress(*OUTAGES):
            [(open_loads,)] = rows(self.engine, OPEN)
            for _ in range(OPEN_LOADS - open_loads):
                catalogs.create(self.engine, "maker", "things", operation=None, arguments={})

    def run(self, faults: int) -> None:
        """Inject *faults*, each after a load has become visible since the last one."""
        self.supervise()
        until(self._is_going_on(-1))
        self.reader.start()
        for _ in range(faults):
            time.sleep(self.chance.uniform(0, MAX_PAUSE_S))
            published = self.published()
            names = list(self.sorts)
            [sort] = self.chance.choices(names, [self.sorts[name][0] for name in names])
            self.sorts[sort][1]()
            self.faults[sort] += 1
            began = time.monotonic()
            until(self._is_going_on(published), MAX_PROGRESS_S, f"{sort}: {self.faults}")
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)

    def _is_going_on(self, published: int) -> Callable[[], bool]:
        def is_going_on() -> bool:
            self.supervise()
            self.feed()
            return self.published() > published

        return is_going_on

    def published(self) -> int:
        """Return the number of loads that are visible; during an outage, a number below all."""
        try:
            [(count,)] = rows(self.engine, PUBLISHED)
        except OUTAGES:
            return -1
        return int(count)

    def kill(self, name: str) -> None:
        """Kill a process with its children."""
        process = self.processes[name]
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(process.pid).children(recursive=True):
                if child.name() != "postgres":
                    child.kill()
        process.kill()

    def kill_worker(self) -> None:
        self.kill(self.chance.choice(["worker one", "worker two"]))

    def kill_all(self) -> None:
        for name in self.processes:
            self.kill(name)

    def kill_publisher(self) -> None:
        """Kill all processes while one of them publishes."""
        self._wait_for_a_publish()
        self.kill_all()

    def kill_backend(self) -> None:
        """Kill the backend that publishes, so that the server recovers from a crash."""
        backend = self._wait_for_a_publish()
        with suppress(ProcessLookupError):
            if backend:
                os.kill(backend, signal.SIGKILL)

    def _wait_for_a_publish(self) -> int | None:
        """Return the backend of a publish, or None if none begins soon."""
        end = time.monotonic() + 5
        while time.monotonic() < end:
            with suppress(*OUTAGES):
                for (pid,) in rows(self.engine, PUBLISHING):
                    return int(pid)
            self.feed()
        return None

    def kill_postmaster(self) -> None:
        with suppress(psutil.NoSuchProcess, FileNotFoundError, IndexError):
            postmaster(self.home).kill()

    def kill_postmaster_and_worker(self) -> None:
        self.kill("worker one")
        self.kill_postmaster()

    def drain(self) -> None:
        """Wait until all loads have ended."""

        def is_over() -> bool:
            self.supervise()
            with suppress(*OUTAGES):
                return rows(self.engine, OPEN) == [(0,)]
            return False

        until(is_over, what=lambda: rows(self.engine, "SELECT state, error FROM catlog.catalog"))
        self.reader.ended.set()
        self.reader.join()

    def end(self) -> None:
        self.reader.ended.set()
        self.kill_all()
        self.engine.dispose()
        self.reader.engine.dispose()
        end_servers(self.project.folder)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    end_servers(tmp_path)


@pytest.mark.timeout(FAULTS * 60 + 600)
@pytest.mark.parametrize("seed", SEEDS)
def test_killed_processes_and_servers_halve_double_and_stop_no_load(seed: int, home: Path) -> None:
    loop = Loop(home, seed)
    try:
        loop.run(FAULTS)
        loop.drain()
        report(loop, seed)
        nothing_is_halved(loop)
        nothing_is_doubled(loop.engine)
        nothing_is_stuck(loop.engine)
    finally:
        loop.end()


def report(loop: Loop, seed: int) -> None:
    faults = ", ".join(f"{count} {sort}" for sort, count in sorted(loop.faults.items()))
    outcomes = dict(
        rows(loop.engine, "SELECT outcome, count(*) FROM catlog.instance_attempt GROUP BY 1")
    )
    print(  # noqa: T201
        f"\nseed {seed}: {loop.faults.total()} faults ({faults}); {loop.published()} loads,"
        f" {dict(loop.reader.counts)}; attempts {outcomes};"
        f" {loop.slowest_s:.1f} s to the next load at most"
    )


def nothing_is_halved(loop: Loop) -> None:
    """Assert that no reader saw a part of a load.

    Two loads that overlap may each bring the last reading of an operation.
    """
    counts = loop.reader.counts
    assert [name for name in counts if name.startswith("half")] == []
    stale = "SELECT 1 FROM catlog.catalog WHERE published ? 'stale' LIMIT 1"
    assert not counts["of two loads"] or rows(loop.engine, stale)


def nothing_is_doubled(engine: Engine) -> None:
    """Assert that each load was done once, and that each record has one state for each load."""
    twice = """SELECT instance_id FROM catlog.instance_attempt WHERE outcome = 'done'
               GROUP BY instance_id HAVING count(*) > 1"""
    assert rows(engine, twice) == []
    [(received, duplicates)] = rows(
        engine,
        """SELECT bool_and((published ->> 'received')::int = :rows),
               sum((published ->> 'duplicates')::int)
           FROM catlog.catalog WHERE state = 'loaded'""",
        rows=WHOLE,
    )
    assert (received, duplicates) == (True, 0)
    for least, most, inverted, visible in rows(
        engine,
        """SELECT min(states), max(states), sum(inverted), (
                   SELECT count(*) FROM catlog.catalog WHERE published ?| '{created,changed}')
           FROM (SELECT part, count(*) AS states,
                     count(*) FILTER (WHERE valid_to <= valid_from) AS inverted
                 FROM things_history GROUP BY part, number) AS of_one GROUP BY part""",
    ):
        assert least == most <= visible
        assert inverted == 0


def nothing_is_stuck(engine: Engine) -> None:
    """Assert that all loads are loaded, and that no attempt or instance is open."""
    states = dict(rows(engine, "SELECT state, count(*) FROM catlog.catalog GROUP BY 1"))
    lost_thrice = """SELECT count(*) FROM catlog.catalog
                     WHERE state = 'failed' AND error LIKE 'lost 3 times in a row%'"""
    [(failed,)] = rows(engine, lost_thrice)
    assert set(states) <= {"loaded", "failed"}
    assert states.get("failed", 0) == failed
    open_ = "SELECT instance_id FROM catlog.instance_attempt WHERE outcome IS NULL"
    assert rows(engine, open_) == []
