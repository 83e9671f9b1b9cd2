"""Benchmark commands: CPU of a command that reads."""

from benchmarks.common import Scale, Server, scrapy
from benchmarks.measuring import in_turn
from benchmarks.report import Result, compare_cpu


def run(server: Server, scale: Scale) -> list[Result]:
    """Compare the CPU of `scrapy status`, with the database running, with `scrapy version`."""
    rounds = scale.times(7)
    with server.database() as engine:
        status, version = in_turn(
            rounds,
            lambda: server.meter.measure(lambda: scrapy(server, engine, "status")),
            lambda: server.meter.measure(lambda: scrapy(server, engine, "version")),
        )
    return [compare_cpu("commands", status, version, "<=1.3", 1)]
