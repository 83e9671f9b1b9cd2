"""How many small jobs a node gets done."""

import statistics
import time

from sqlalchemy import Engine

from benchmarks.common import Result, Server, note
from benchmarks.fleet import Node, catlog_node, count_loaded, stock_node, wait_until

SLOTS = 4
# Seconds that a measurement may take.
PATIENCE = 600.0


def run(server: Server, small: bool) -> Result:
    """One-item jobs a minute on a catlog node, against a scrapyd node.

    Both get the same spider by schedule.json and run four at once; scrapyd looks for jobs ten times
    a second. Timed is from the first POST until all have ended: in catlog, until each is `loaded`,
    its item checked, stored and published. scrapyd's items go nowhere, and it gets fewer jobs,
    which is no disadvantage: neither gets slower with their number. The ratio is the median of the
    rounds' ratios, as what else the machine does changes from one to the next.
    """
    count, fewer, rounds = (4, 2, 1) if small else (160, 20, 5)
    ratios = []
    with (
        server.database() as engine,
        catlog_node(server, engine, max_proc=SLOTS) as ours,
        stock_node(server, max_proc=SLOTS, poll_interval=0.1) as peer,
    ):
        for _ in range(rounds):
            theirs = 60 * fewer / run_stock(peer, fewer)
            mine = 60 * count / run_catlog(ours, engine, count)
            ratios.append(mine / theirs)
            note(f"{mine:.0f} jobs a minute ({count} run), scrapyd {theirs:.0f} ({fewer} run)")
        if (left := scraped(peer)) != rounds * fewer:
            raise RuntimeError(f"only {left} of scrapyd's jobs have yielded their item")
    return Result("jobs", statistics.median(ratios), ">=8")


def run_catlog(node: Node, engine: Engine, count: int) -> float:
    """Seconds until *count* more jobs are loaded."""
    all_of_them = count_loaded(engine) + count
    started = time.perf_counter()
    for _ in range(count):
        node.schedule("one")
    wait_until(lambda: count_loaded(engine) == all_of_them, PATIENCE, "end of catlog's jobs")
    return time.perf_counter() - started


def run_stock(node: Node, count: int) -> float:
    """Seconds until *count* more jobs have run."""
    started = time.perf_counter()
    for _ in range(count):
        node.schedule("one")
    wait_until(node.is_idle, PATIENCE, "end of scrapyd's jobs")
    return time.perf_counter() - started


def scraped(node: Node) -> int:
    """How many jobs of a scrapyd node have yielded one item, by their logs."""
    logs = (node.folder / "logs").rglob("*.log")
    return sum("'item_scraped_count': 1," in log.read_text() for log in logs)
