"""Benchmark idle: CPU of a node without jobs."""

import time

import psutil

from benchmarks.common import Result, Server, note
from benchmarks.fleet import Node, catlog_node


def run(server: Server, small: bool) -> Result:
    """Measure CPU seconds per second of an idle node and its zygotes.

    The ratio is the share of one core, without a peer. It leaves out PostgreSQL's work for the
    node's queries.
    """
    settle, watch = (1, 2) if small else (10, 30)
    with server.database() as engine, catlog_node(server, engine) as node:
        time.sleep(settle)
        started, before = time.perf_counter(), cpu(node)
        time.sleep(watch)
        taken, after = time.perf_counter() - started, cpu(node)
    note(f"{len(after)} processes, {100 * (sum(after) - sum(before)) / taken:.2f} % of a core")
    return Result("idle", (sum(after) - sum(before)) / taken, "<=0.01")


def cpu(node: Node) -> list[float]:
    """Return the CPU seconds of each process of a node."""
    main = psutil.Process(node.process.pid)
    times = [process.cpu_times() for process in [main, *main.children(recursive=True)]]
    return [spent.user + spent.system for spent in times]
