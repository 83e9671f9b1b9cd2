"""Benchmark idle: CPU of a node without jobs."""

import time

from benchmarks.common import Scale, Server
from benchmarks.fleet import catlog_node, cpu_of
from benchmarks.report import Result, note


def run(server: Server, scale: Scale) -> list[Result]:
    """Measure CPU seconds per second of an idle node and its zygotes.

    The ratio is the share of one core, without a peer. It leaves out PostgreSQL's work for the
    node's queries, which is printed.
    """
    settle, watch = (0.5, 0.5) if scale.small else (5, scale.count(20, 1))
    with server.database() as engine, catlog_node(server, engine) as node:
        time.sleep(settle)
        started, before, server_s = time.perf_counter(), cpu_of(node), server.meter.server_s()
        time.sleep(watch)
        taken, after = time.perf_counter() - started, cpu_of(node)
        server_s = server.meter.server_s() - server_s
    share = (sum(after) - sum(before)) / taken
    note(f"{len(after)} processes; PostgreSQL uses {100 * server_s / taken:.2f} % of a core")
    return [Result("idle", f"{100 * share:.2f} % CPU", "", share, "<=0.01", f"{watch:g} s")]
