"""Random faults every second: each catalog is loaded once, and no process is left.

    CHAOS_SEED=7 CHAOS_SECONDS=120 python -m pytest -s tests/acceptance/test_chaos.py

The same seed breaks the same sorts of things in the same order; when exactly a process is hit, is
up to the machine.
"""

import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest
from sqlalchemy import Engine

from catlog_scrapy.db.engine import make_engine
from catlog_scrapy.db.migrations import upgrade
from tests.support.fleet import Database, Fleet, NodeProcess, fill, small_disk, things
from tests.support.proxy import Proxy
from tests.support.source import Answer, Source
from tests.support.waiting import rows, until

pytestmark = pytest.mark.slow

SEEDS = [int(seed) for seed in os.environ.get("CHAOS_SEED", "1").split(",")]
SECONDS = float(os.environ.get("CHAOS_SECONDS", "120"))
# Two hundred instances: so many batches of so many parts.
BATCHES = 20
PARTS = [f"p{number}" for number in range(10)]
PAGES = 6
LEASE = 4.0
# Durations of a stopped process and of a silent network, some longer than the lease.
LONGEST_PAUSE = 6.0
MAKERS = 4

# Errors that an attempt may have, by its outcome: the injected faults.
TRUE_REASONS = {
    "lost": r"the process was killed by SIGKILL|its node \S+ went down|its worker on \S+ vanished"
    r"|the database could not be reached for 4 s|the lease expired"
    r"|the process lost its lease, or could not reach the database",
    "released": r"released: (its worker|the node) stopped|the process did not start: .+"
    r"|refused by node \S+: project 'default': its process ended at once \(9\)"
    r"|refused by node \S+: project 'default' is being imported",
    "cancelled": r"lost 3 times in a row: .+",
}


class Chaos:
    """Fault injector: breaks parts of a fleet at random, and repairs each a little later."""

    def __init__(
        self, seed: int, fleet: Fleet, database: Database, proxies: dict[str, Proxy]
    ) -> None:
        self.chance = random.Random(seed)
        self.fleet = fleet
        self.database = database
        self.proxies = proxies
        self.counts: Counter[str] = Counter()
        self.mends: list[tuple[float, Callable[[], object]]] = []
        self.ailing: set[str] = set()
        self.scheduler = fleet.start("schedule")
        self.sorts: dict[str, tuple[float, Callable[[], object]]] = {
            "node killed": (2, self.kill_node),
            "node terminated": (1, self.terminate_node),
            "node stopped": (1, lambda: self.pause_a("node")),
            "spider killed": (4, self.kill_spider),
            "spider stopped": (2, lambda: self.pause_a("spider")),
            "zygote killed": (1.5, self.kill_parent),
            "zygote stopped": (0.5, lambda: self.pause_a("parent")),
            "scheduler killed": (1, self.kill_scheduler),
            "network frozen": (1.5, self.freeze),
            "database killed": (0.4, self.kill_database),
        }
        if os.geteuid() == 0:
            self.sorts["logs filled"] = (1, self.fill_logs)

    def go_on_for(self, seconds: float) -> None:
        """Inject a fault every second, and run the repairs that are due."""
        end = time.monotonic() + seconds
        following = time.monotonic()
        while time.monotonic() < end:
            if time.monotonic() >= following:
                following += 1
                self.break_something()
            self.mend(time.monotonic())
            self.supervise()
            time.sleep(0.05)

    def heal(self) -> None:
        """Repair all faults."""
        self.mend(float("inf"))
        self.supervise()

    def break_something(self) -> None:
        """Inject a fault, if a healthy target is left."""
        sorts = list(self.sorts)
        [sort] = self.chance.choices(sorts, [self.sorts[sort][0] for sort in sorts])
        if self.sorts[sort][1]() is not None:
            self.counts[sort] += 1

    def mend(self, now: float) -> None:
        """Run the repairs that are due by *now*."""
        due = sorted((m for m in self.mends if m[0] <= now), key=lambda mend: mend[0])
        self.mends = [mend for mend in self.mends if mend[0] > now]
        for _, mend in due:
            mend()

    def supervise(self) -> None:
        """Restart ended processes, as an init system does."""
        for node in self.fleet.nodes:
            if not node.is_running and node.name not in self.ailing:
                self.counts["(node started again)"] += 1
                node.start()
        if self.scheduler.poll() is not None and "scheduler" not in self.ailing:
            self.scheduler = self.fleet.start("schedule")

    def later(self, shortest: float, longest: float, mend: Callable[[], object]) -> bool:
        """Schedule a repair, and return True: a fault was injected."""
        moment = time.monotonic() + self.chance.uniform(shortest, longest)
        self.mends.append((moment, mend))
        return True

    def ails(self, what: str, shortest: float, longest: float, mend: Callable[[], object]) -> bool:
        """Schedule a repair, and exclude *what* from other faults until then."""
        self.ailing.add(what)

        def mended() -> None:
            self.ailing.discard(what)
            mend()

        return self.later(shortest, longest, mended)

    def some_node(self) -> NodeProcess | None:
        """Return a healthy node."""
        well = [n for n in self.fleet.nodes if n.name not in self.ailing and n.is_running]
        return self.chance.choice(well) if well else None

    def some_spider(self) -> psutil.Process | None:
        """Return a process of any node."""
        spiders = [spider for node in self.fleet.nodes for spider in node.spiders()]
        return self.chance.choice(spiders) if spiders else None

    def kill_node(self) -> bool | None:
        """Kill the process, and restart it a moment later."""
        if node := self.some_node():
            node.kill()
            return self.ails(node.name, 0, 3, node.start)
        return None

    def terminate_node(self) -> bool | None:
        """Stop a node, which drains and is restarted afterwards."""
        if node := self.some_node():
            node.signal(signal.SIGTERM)
            return True  # the supervisor does the rest
        return None

    def kill_spider(self) -> bool | None:
        """Kill a spider's process."""
        if spider := self.some_spider():
            with suppress(psutil.NoSuchProcess):
                spider.kill()
            return True
        return None

    def kill_parent(self) -> bool | None:
        """Kill a zygote, which its node restarts."""
        node = self.some_node()
        for parent in node.parents() if node else []:
            parent.kill()
            return True
        return None

    def pause_a(self, what: str) -> bool | None:
        """Stop a process for a while."""
        node = self.some_node()
        process: psutil.Process | None = None
        if what == "spider":
            process = self.some_spider()
        elif node and what == "parent":
            process = next(iter(node.parents()), None)
        elif node:
            process = psutil.Process(node.pid)
        if process is None:
            return None

        def go_on(process: psutil.Process = process) -> None:
            with suppress(psutil.NoSuchProcess):
                process.resume()

        with suppress(psutil.NoSuchProcess):
            process.suspend()
        return self.later(0.5, LONGEST_PAUSE, go_on)

    def kill_scheduler(self) -> bool:
        """Kill the process, and restart it a moment later."""
        self.scheduler.kill()
        self.scheduler.wait()
        return self.ails("scheduler", 0, 2, lambda: None)

    def freeze(self) -> bool | None:
        """Drop all traffic between a node and PostgreSQL for a while."""
        name = self.chance.choice(sorted(self.proxies))
        if f"network of {name}" in self.ailing:
            return None
        self.proxies[name].freeze()
        return self.ails(f"network of {name}", 0.5, LONGEST_PAUSE, self.proxies[name].thaw)

    def kill_database(self) -> bool | None:
        """Stop PostgreSQL, and restart it after a few seconds."""
        if "database" in self.ailing:
            return None
        self.database.kill()
        return self.ails("database", 1, 4, self.database.start)

    def fill_logs(self) -> bool | None:
        """Fill the disk of a node's logs for a while."""
        node = self.chance.choice(self.fleet.nodes)
        file = fill(node.home / "logs")
        return self.later(1, 6, lambda: file.unlink(missing_ok=True))


def declare(fleet: Fleet) -> None:
    """Declare the providers, and a schedule for each batch that will be due once."""
    declaration = (fleet.project.folder / "shop/providers/maker.toml").read_text()
    provider, _, _ = declaration.partition("[[schedule]]")
    for maker in range(MAKERS):
        own = [
            f'\n[[schedule]]\nname = "{batch}"\nscheme = "things"\ncron = "0 0 1 1 *"\n'
            f'arguments = {{ batch = "{batch}", pages = "{PAGES}" }}\n'
            for batch in batches()[maker::MAKERS]
        ]
        text = provider.replace('name = "maker"', f'name = "maker-{maker}"') + "".join(own)
        fleet.project.write(f"shop/providers/maker-{maker}.toml", text)
    fleet.apply()


def batches() -> list[str]:
    """Return the names of the batches."""
    return [f"batch {number:02}" for number in range(BATCHES)]


def spread_due_times(engine: Engine) -> None:
    """Spread the due times of the batches over the time of the faults."""
    rows(
        engine,
        """UPDATE catlog.schedule SET next_due_at = clock_timestamp()
               + make_interval(secs => :every * substring(name from '\\d+')::int)
           WHERE name LIKE 'batch %' RETURNING id""",
        every=SECONDS * 0.8 / BATCHES,
    )


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database(tmp_path / "database") as database:
        yield database


@pytest.mark.timeout(SECONDS + 1800)
@pytest.mark.parametrize("seed", SEEDS)
def test_fleet_under_random_faults_loads_each_catalog_once(
    seed: int, tmp_path: Path, database: Database
) -> None:
    engine = make_engine(database.url)
    upgrade(engine)
    with ExitStack() as stack:
        stack.callback(engine.dispose)
        source = stack.enter_context(Source())
        fleet = stack.enter_context(
            Fleet(
                tmp_path,
                engine,
                database.url,
                source,
                parts=PARTS,
                provider="max_running = 5",
                CATLOG_LEASE=str(LEASE),
                CATLOG_GRACE="2",
            )
        )
        for page in range(1, PAGES + 1):
            source.answers[f"/page?{page}"] = Answer(b"[]", delay=0.2)
        declare(fleet)
        proxies = {}
        for name in ("one", "two", "three"):
            proxies[name] = stack.enter_context(Proxy(database.url))
            if os.geteuid() == 0:
                stack.enter_context(small_disk(fleet.project.folder / f"home-{name}/logs", 4096))
            fleet.node(name, ready=False, CATLOG_DATABASE_URL=proxies[name].url)
        fleet.ready(*fleet.nodes)
        chaos = Chaos(seed, fleet, database, proxies)
        spread_due_times(engine)
        due = "SELECT id, next_due_at FROM catlog.schedule WHERE name LIKE 'batch %'"
        expected = Counter(rows(engine, due))
        chaos.go_on_for(SECONDS)
        chaos.heal()

        def is_over() -> bool:
            chaos.supervise()
            made = rows(engine, "SELECT count(*) FROM catlog.catalog WHERE due_at IS NOT NULL")
            return made == [(BATCHES,)] and fleet.is_over()

        begun = time.monotonic()
        until(is_over, 900, fleet.report)
        counts = ", ".join(f"{count} {sort}" for sort, count in sorted(chaos.counts.items()))
        said = f"seed {seed}: {counts}; {Counter(fleet.outcomes())}; states {fleet.states()}"
        print(f"\n{said}; over {time.monotonic() - begun:.0f} s after the last")  # noqa: T201
        for error, number in Counter(map(without_names, fleet.errors())).most_common():
            print(f"  {number} {error}")  # noqa: T201
        made = "SELECT schedule_id, due_at FROM catlog.catalog WHERE due_at IS NOT NULL"
        assert Counter(rows(engine, made)) == expected
        all_errors_are_true(fleet)
        failed_catalogs_were_lost(fleet)
        wanted = {thing for batch in batches() for thing in things(PARTS, batch, PAGES)}
        chaos.scheduler.terminate()
        chaos.scheduler.wait(300)
        fleet.is_sound(wanted)
        assert rows(engine, "SELECT count(*) FROM things") == [(len(wanted),)]


def without_names(error: str) -> str:
    """Return *error* with a placeholder for each node name, to compare errors of nodes."""
    return re.sub(r"\w+:\d{4,5}", "NODE", error)


def all_errors_are_true(fleet: Fleet) -> None:
    """Assert that the error of each unfinished attempt names the injected fault."""
    untrue = []
    for error in fleet.errors():
        outcome, _, reason = error.partition(": ")
        if not re.fullmatch(TRUE_REASONS.get(outcome, ""), reason):
            untrue.append(error)
    assert untrue == []


def failed_catalogs_were_lost(fleet: Fleet) -> None:
    """Assert that only three losses in a row failed a catalog, and that its retry loads it."""
    failed = rows(
        fleet.engine,
        """SELECT c.id, c.error, (
               SELECT max(lost) FROM catlog.catalog_scheme_operation_instance i
               WHERE i.catalog_id = c.id AND i.state = 'failed')
           FROM catlog.catalog c WHERE c.state <> 'loaded'""",
    )
    for catalog, error, lost in failed:
        assert error.startswith("lost 3 times in a row: "), error
        assert lost == 3
        print(f"lost three times in a row, now retried: {catalog}")  # noqa: T201
        fleet.project.scrapy("retry", str(catalog))
