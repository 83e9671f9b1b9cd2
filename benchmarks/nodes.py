"""Benchmark nodes: claims of several nodes at once."""

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

from benchmarks.common import Scale, Server, run_sql
from benchmarks.measuring import median_ratio
from benchmarks.report import Result, note, sample_text
from catlog_scrapy.db.engine import make_engine
from catlog_scrapy.store.queue import attempts, claims
from catlog_scrapy.store.queue.report import Report

NODES = 4
PROVIDERS = 8
# Timeout of a measurement.
TIMEOUT_S = 300.0


class Work(NamedTuple):
    """Work of a process between two times of the machine's clock.

    `claiming` is its seconds of claiming, `client_s` its CPU seconds.
    """

    began: float
    ended: float
    claiming: float
    client_s: float


@dataclass(frozen=True)
class Speed:
    """Jobs per second of all processes: claimed only, and claimed and finished.

    `cpu_s` is the CPU of client and PostgreSQL to claim and finish one job.
    """

    claimed: float
    finished: float
    cpu_s: float

    def __str__(self) -> str:
        return (
            f"{self.claimed:.0f} claimed per second, {self.finished:.0f} claimed and finished,"
            f" {1000 * self.cpu_s:.2f} ms CPU each"
        )


def run(server: Server, scale: Scale) -> list[Result]:
    """Compare claims per second of four nodes at once with procrastinate's fetches.

    Each process has its own connection, and claims and finishes a quarter of the jobs as fast as
    it can. Only the claims are timed. A worker of procrastinate fetches one job. A node claims one
    instance, or as many instances of one provider as it has free slots, here eight. A job of catlog
    is a catalog with one instance, as schedule.json creates it, of eight providers in turn;
    procrastinate's jobs are in as many queues. Both sides keep finished jobs. Also printed: the
    CPU of claims with finishing.
    """
    each, rounds, nodes = scale.count(160, 8), scale.times(), 2 if scale.small else NODES
    speeds: dict[str, list[Speed]] = {"ones": [], "eights": [], "procrastinate": []}
    sides = {
        "procrastinate": (defer_procrastinate_jobs, procrastinate_node),
        "ones": (insert_catalogs, catlog_node_with_one_slot),
        "eights": (insert_catalogs, catlog_node),
    }
    spawn = multiprocessing.get_context("spawn")
    # This pool reports a dead process; multiprocessing.Pool would silently replace it.
    with ProcessPoolExecutor(nodes, spawn, begin, (spawn.Barrier(nodes),)) as pool:
        for _ in range(rounds):
            for name, side in sides.items():
                speeds[name].append(measure(server, pool, *side, each, nodes=nodes))
                note(f"{name}: {speeds[name][-1]}")
    fetched = [one.claimed for one in speeds["procrastinate"]]
    sample = sample_text(nodes * each, rounds)
    return [
        Result(
            f"claims_by_{name}",
            f"{statistics.median(claimed):.0f}/s",
            f"{statistics.median(fetched):.0f}/s",
            median_ratio(claimed, fetched),
            reach,
            sample,
        )
        for name, reach in {"ones": ">=1", "eights": ">=4"}.items()
        if (claimed := [one.claimed for one in speeds[name]])
    ]


def measure(
    server: Server,
    pool: ProcessPoolExecutor,
    queue: Callable[[Engine, int], None],
    node: Callable[[str, str, int], Work],
    each: int,
    *,
    nodes: int,
) -> Speed:
    """Return the speed of the *pool* of *nodes* processes, each with *each* new jobs."""
    with server.database() as engine:
        queue(engine, nodes * each)
        url = engine.url.render_as_string(hide_password=False)
        before = server.meter.server_s()
        work = [pool.submit(node, url, f"node-{number}", each) for number in range(nodes)]
        done = [one.result(TIMEOUT_S) for one in work]
        server_s = server.meter.server_s() - before
    seconds = max(one.ended for one in done) - min(one.began for one in done)
    claiming = sum(one.claiming for one in done) / nodes
    cpu_s = (server_s + sum(one.client_s for one in done)) / (nodes * each)
    return Speed(nodes * each / claiming, nodes * each / seconds, cpu_s)


_ready: "multiprocessing.synchronize.Barrier | None" = None


def begin(ready: "multiprocessing.synchronize.Barrier") -> None:
    """Store the barrier at which all processes start together."""
    global _ready  # noqa: PLW0603
    _ready = ready


def wait_for_others() -> None:
    """Wait until all processes are ready."""
    if _ready:
        _ready.wait(60)


def insert_catalogs(engine: Engine, count: int) -> None:
    """Insert *count* started catalogs with one instance each, of PROVIDERS in turn."""
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


def catlog_node(url: str, name: str, count: int, slots: int = 8) -> Work:
    """Claim and complete *count* instances, *slots* at a time."""
    engine = make_engine(url)
    with engine.connect():
        wait_for_others()
    began, spent = time.monotonic(), time.process_time()
    claiming, done = 0.0, 0
    while done < count:
        started = time.monotonic()
        held = claims.claim(engine, name, limit=min(slots, count - done))
        claiming += time.monotonic() - started
        for claimed in held:
            outcome = attempts.complete(engine, claimed.attempt, Report(), claimed.limits)
            if outcome != "done":
                raise RuntimeError(f"{claimed.attempt} is {outcome}")
        done += len(held)
    ended, spent = time.monotonic(), time.process_time() - spent
    engine.dispose()
    return Work(began, ended, claiming, spent)


def catlog_node_with_one_slot(url: str, name: str, count: int) -> Work:
    """Claim and complete *count* instances, one at a time."""
    return catlog_node(url, name, count, slots=1)


def defer_procrastinate_jobs(engine: Engine, count: int) -> None:
    """Defer *count* jobs of procrastinate, in PROVIDERS queues in turn."""
    connector = SyncPsycopgConnector(conninfo=conninfo(engine.url.render_as_string(False)))
    app = App(connector=connector)
    with app.open():
        app.schema_manager.apply_schema()
        for number in range(count):
            queue = f"shop_{number % PROVIDERS}"
            app.configure_task("products", allow_unknown=True, queue=queue).defer()
    run_sql(engine, "ANALYZE")


def procrastinate_node(url: str, _name: str, count: int) -> Work:
    """Fetch and finish *count* jobs by the calls of procrastinate's worker."""
    return asyncio.run(_procrastinate_node(url, count))


async def _procrastinate_node(url: str, count: int) -> Work:
    app = App(connector=PsycopgConnector(conninfo=conninfo(url), min_size=1, max_size=1))
    async with app.open_async():
        manager = app.job_manager
        worker = await manager.register_worker()
        wait_for_others()
        began, spent = time.monotonic(), time.process_time()
        claiming, done = 0.0, 0
        while done < count:
            started = time.monotonic()
            job = await manager.fetch_job(queues=None, worker_id=worker)
            claiming += time.monotonic() - started
            if job is not None:
                await manager.finish_job(job, Status.SUCCEEDED, delete_job=False)
                done += 1
        ended, spent = time.monotonic(), time.process_time() - spent
    return Work(began, ended, claiming, spent)


def conninfo(url: str) -> str:
    """Return *url* in libpq's form."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
