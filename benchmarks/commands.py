"""CPU of a command that reads."""

import resource
from collections.abc import Callable

from benchmarks.common import Result, Server, alternate, note, scrapy


def run(server: Server, small: bool) -> Result:
    """CPU seconds of `scrapy status`, with the database running, against `scrapy version`."""
    with server.database() as engine:

        def cpu_of(command: str) -> Callable[[], float]:
            def measure() -> float:
                before = resource.getrusage(resource.RUSAGE_CHILDREN)
                scrapy(server, engine, command)
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

            return measure

        ours, peer = alternate(2 if small else 7, cpu_of("status"), cpu_of("version"))
    note(f"medians: status {ours:.3f} s, version {peer:.3f} s")
    return Result("commands", ours / peer, "<=1.3")
