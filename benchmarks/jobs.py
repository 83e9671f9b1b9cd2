"""Benchmark jobs: throughput of small jobs on a node."""

import statistics
import time

from sqlalchemy import Engine

from benchmarks.common import Scale, Server
from benchmarks.fleet import Node, catlog_node, count_loaded, cpu_of, stock_node, wait_until
from benchmarks.measuring import median_ratio
from benchmarks.report import Result, note, sample_text

SLOTS = 4
# Timeout of a measurement.
TIMEOUT_S = 600.0


def run(server: Server, scale: Scale) -> list[Result]:
    """Compare one-item jobs per minute on a catlog node with a scrapyd node.

    Both run the same spider by schedule.json in four slots; scrapyd polls ten times a second. The
    time runs from the first POST to the end of all jobs; a job of catlog ends when its catalog is
    `loaded`. scrapyd's items are not stored. It gets fewer jobs, which changes nothing: the time
    of a job does not depend on their number.
    Also printed: the CPU of catlog's node and of PostgreSQL for a job.
    """
    count, rounds = scale.count(80, 2), scale.times()
    fewer = max(1, count // 8)
    catlog, scrapyd = [], []
    with (
        server.database() as engine,
        catlog_node(server, engine, max_proc=SLOTS) as node,
        stock_node(server, max_proc=SLOTS, poll_interval=0.1) as stock,
    ):
        for _ in range(rounds):
            scrapyd.append(60 * fewer / run_stock(stock, fewer))
            before = server.meter.server_s() + sum(cpu_of(node))
            catlog.append(60 * count / run_catlog(node, engine, count))
            spent = server.meter.server_s() + sum(cpu_of(node)) - before
            note(
                f"{catlog[-1]:.0f} jobs a minute ({count} run), {1000 * spent / count:.1f} ms CPU"
                f" each; scrapyd {scrapyd[-1]:.0f} jobs ({fewer} run)"
            )
        if (left := scraped(stock)) != rounds * fewer:
            raise RuntimeError(f"only {left} of scrapyd's jobs have yielded their item")
    return [
        Result(
            "jobs",
            f"{statistics.median(catlog):.0f}/min",
            f"{statistics.median(scrapyd):.0f}/min",
            median_ratio(catlog, scrapyd),
            ">=8",
            sample_text(count, rounds),
        )
    ]


def run_catlog(node: Node, engine: Engine, count: int) -> float:
    """Return the seconds until *count* further jobs are loaded."""
    target = count_loaded(engine) + count
    started = time.perf_counter()
    for _ in range(count):
        node.schedule("one")
    wait_until(lambda: count_loaded(engine) == target, TIMEOUT_S, "end of catlog's jobs")
    return time.perf_counter() - started


def run_stock(node: Node, count: int) -> float:
    """Return the seconds until *count* further jobs have run."""
    started = time.perf_counter()
    for _ in range(count):
        node.schedule("one")
    wait_until(node.is_idle, TIMEOUT_S, "end of scrapyd's jobs")
    return time.perf_counter() - started


def scraped(node: Node) -> int:
    """Count the jobs of a scrapyd node that yielded one item, by their logs."""
    logs = (node.folder / "logs").rglob("*.log")
    return sum("'item_scraped_count': 1," in log.read_text() for log in logs)
