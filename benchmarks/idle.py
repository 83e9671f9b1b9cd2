"""What a node costs that has nothing to do."""

import time

import psutil

from benchmarks.common import Result, Server, note
from benchmarks.fleet import Node, catlog_node


def run(server: Server, small: bool) -> Result:
    """CPU seconds of an idle node and its warm parents in a second.

    There is no peer: it is the share of one core. The server's own work for the node's questions
    is not in it.
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
    """The CPU seconds of each of a node's processes so far."""
    main = psutil.Process(node.process.pid)
    times = [process.cpu_times() for process in [main, *main.children(recursive=True)]]
    return [spent.user + spent.system for spent in times]
