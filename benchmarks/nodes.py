"""What the queue gives to several nodes at once."""

import asyncio
import multiprocessing
import multiprocessing.synchronize
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from procrastinate import App, PsycopgConnector, SyncPsycopgConnector
from procrastinate.jobs import Status
from sqlalchemy import Engine, make_url

from benchmarks.common import Result, Server, note, run_sql
from catlog_scrapy.db.engine import make_engine
from catlog_scrapy.store.queue import attempts, claims

NODES = 4
PROVIDERS = 8
# Seconds that a measurement may take.
PATIENCE = 300.0


class Taken(NamedTuple):
    """What a process did between two moments of the machine's clock, with its seconds of taking."""

    began: float
    ended: float
    taking: float


@dataclass(frozen=True)
class Speed:
    """Jobs a second of all processes: taken, the finishing not counted; and taken and finished."""

    taken: float
    finished: float

    def __str__(self) -> str:
        return f"{self.taken:.0f} taken a second, {self.finished:.0f} taken and finished"


def run(server: Server, small: bool) -> Result:
    """Claims a second by four nodes at once, against procrastinate's fetches.

    Each process has its own connection and goes on as soon as it can: take, finish, take the next,
    until it has had a quarter of the jobs. Only taking is counted. Both take as their nodes and
    workers do: procrastinate's fetch one job, a node as many as it has free slots, here eight, of
    one provider. A node whose slots become free one at a time claims one; what that and finishing
    come to is noted. A job of ours is what schedule.json makes, a catalog with one instance, of
    eight providers in turn; procrastinate's are in as many queues. Both sides leave finished jobs
    where they are. The ratio is the median of the rounds' ratios.
    """
    each, rounds = (8, 1) if small else (248, 5)
    ratios, singles = [], []
    spawn = multiprocessing.get_context("spawn")
    # Of a process that dies, this pool tells; multiprocessing's own would start another one.
    with ProcessPoolExecutor(NODES, spawn, begin, (spawn.Barrier(NODES),)) as pool:
        for _ in range(rounds):
            theirs = measure(server, pool, queue_theirs, their_node, each)
            mine = measure(server, pool, queue_ours, our_node, each)
            single = measure(server, pool, queue_ours, our_single_slot, each)
            note(f"catlog {mine}; by ones {single}; procrastinate {theirs}")
            ratios.append(mine.taken / theirs.taken)
            singles.append(single.taken / theirs.taken)
    note(f"by ones, claims against fetches: {statistics.median(singles):.3g}")
    return Result("nodes", statistics.median(ratios), ">=1.5")


def measure(
    server: Server,
    pool: ProcessPoolExecutor,
    queue: Callable[[Engine, int], None],
    node: Callable[[str, str, int], Taken],
    each: int,
) -> Speed:
    """What all processes of the *pool* together do with *each* times NODES new jobs."""
    with server.database() as engine:
        queue(engine, NODES * each)
        url = engine.url.render_as_string(hide_password=False)
        work = [pool.submit(node, url, f"node-{number}", each) for number in range(NODES)]
        done = [one.result(PATIENCE) for one in work]
    seconds = max(one.ended for one in done) - min(one.began for one in done)
    taking = sum(one.taking for one in done) / NODES
    return Speed(taken=NODES * each / taking, finished=NODES * each / seconds)


_ready: "multiprocessing.synchronize.Barrier | None" = None


def begin(ready: "multiprocessing.synchronize.Barrier") -> None:
    """In each process, first: *ready* lets none of them begin before all can."""
    global _ready  # noqa: PLW0603
    _ready = ready


def wait_for_others() -> None:
    """Return when all processes have come to this."""
    if _ready:
        _ready.wait(60)


def queue_ours(engine: Engine, count: int) -> None:
    """Queue *count* started catalogs with an instance each, of PROVIDERS in turn."""
    run_sql(
        engine,
        f"""INSERT INTO catlog.provider (name)
            SELECT 'shop_' || n FROM generate_series(1, {PROVIDERS}) AS n""",
        """INSERT INTO catlog.catalog_scheme (provider_id, name, version)
           SELECT id, 'products', 1 FROM catlog.provider""",
        """INSERT INTO catlog.catalog_scheme_operation (scheme_id, name, spider, min_results)
           SELECT id, 'products', 'products', 0 FROM catlog.catalog_scheme""",
        f"""WITH made AS (
                INSERT INTO catlog.catalog (provider_id, scheme_id, origin, state)
                SELECT s.provider_id, s.id, 'job', 'loading'
                FROM generate_series(1, {count}) AS n
                JOIN catlog.provider p ON p.name = 'shop_' || n % {PROVIDERS} + 1
                JOIN catlog.catalog_scheme s ON s.provider_id = p.id
                ORDER BY n RETURNING id, provider_id, scheme_id)
            INSERT INTO catlog.catalog_scheme_operation_instance
                (catalog_id, operation_id, provider_id)
            SELECT made.id, o.id, made.provider_id
            FROM made JOIN catlog.catalog_scheme_operation o ON o.scheme_id = made.scheme_id""",
        "ANALYZE",
    )


def our_node(url: str, name: str, count: int, slots: int = 8) -> Taken:
    """Claim and complete *count* instances, as many at a time as there are *slots*."""
    engine = make_engine(url)
    with engine.connect():
        wait_for_others()
    began, taking, done = time.monotonic(), 0.0, 0
    while done < count:
        asked = time.monotonic()
        held = claims.claim(engine, name, limit=min(slots, count - done))
        taking += time.monotonic() - asked
        for claimed in held:
            outcome = attempts.complete(engine, claimed.attempt, attempts.Report())
            if outcome != "done":
                raise RuntimeError(f"{claimed.attempt} is {outcome}")
        done += len(held)
    ended = time.monotonic()
    engine.dispose()
    return Taken(began, ended, taking)


def our_single_slot(url: str, name: str, count: int) -> Taken:
    """The same, one at a time."""
    return our_node(url, name, count, slots=1)


def queue_theirs(engine: Engine, count: int) -> None:
    """Queue *count* jobs of procrastinate, of as many queues as there are providers."""
    connector = SyncPsycopgConnector(conninfo=conninfo(engine.url.render_as_string(False)))
    app = App(connector=connector)
    with app.open():
        app.schema_manager.apply_schema()
        for number in range(count):
            queue = f"shop_{number % PROVIDERS}"
            app.configure_task("products", allow_unknown=True, queue=queue).defer()
    run_sql(engine, "ANALYZE")


def their_node(url: str, _name: str, count: int) -> Taken:
    """Fetch and finish *count* jobs, by what procrastinate's own worker calls."""
    return asyncio.run(_their_node(url, count))


async def _their_node(url: str, count: int) -> Taken:
    app = App(connector=PsycopgConnector(conninfo=conninfo(url), min_size=1, max_size=1))
    async with app.open_async():
        manager = app.job_manager
        worker = await manager.register_worker()
        wait_for_others()
        began, taking, done = time.monotonic(), 0.0, 0
        while done < count:
            asked = time.monotonic()
            job = await manager.fetch_job(queues=None, worker_id=worker)
            taking += time.monotonic() - asked
            if job is not None:
                await manager.finish_job(job, Status.SUCCEEDED, delete_job=False)
                done += 1
        ended = time.monotonic()
    return Taken(began, ended, taking)


def conninfo(url: str) -> str:
    """*url* as libpq wants it."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
