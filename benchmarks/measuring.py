"""Wall time and CPU time of a client and of PostgreSQL's processes."""

import os
import resource
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

Measured = TypeVar("Measured")

CLOCK_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """Seconds of wall time, and CPU seconds of the client and of PostgreSQL."""

    wall_s: float
    client_s: float
    server_s: float

    @property
    def cpu_s(self) -> float:
        """CPU seconds of client and PostgreSQL together."""
        return self.client_s + self.server_s

    def __sub__(self, earlier: "Cost") -> "Cost":
        return Cost(
            self.wall_s - earlier.wall_s,
            self.client_s - earlier.client_s,
            self.server_s - earlier.server_s,
        )

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.wall_s + other.wall_s,
            self.client_s + other.client_s,
            self.server_s + other.server_s,
        )

    def __str__(self) -> str:
        return (
            f"{self.wall_s:.3f} s wall, {self.cpu_s:.3f} s CPU"
            f" (client {self.client_s:.3f}, PostgreSQL {self.server_s:.3f})"
        )


ZERO = Cost(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Meter:
    """Meter of this process, with its children that have ended, and of a PostgreSQL server.

    The server's CPU time is that of the postmaster, of its living children (backends, parallel
    workers, checkpointer, WAL writer, autovacuum) and of its ended children, whose time the kernel
    adds to the postmaster's when it waits for them. `schedstat` gives the time of living processes
    in nanoseconds; that of ended ones has the resolution of the kernel's clock ticks.
    """

    postmaster: int

    def measure(self, work: Callable[[], object]) -> Cost:
        """Return the cost of *work*."""
        server = self.server_s()
        client, started = client_s(), time.perf_counter()
        work()
        wall, client = time.perf_counter() - started, client_s() - client
        return Cost(wall, client, self.server_s() - server)

    def read(self) -> Cost:
        """Return the totals so far, for a difference; wall time begins at any point."""
        return Cost(time.perf_counter(), client_s(), self.server_s())

    def server_s(self) -> float:
        """Return the CPU seconds of PostgreSQL since its start."""
        while True:
            ended = self._ended_s()
            living = sum(_process_s(pid) for pid in [self.postmaster, *self.children()])
            if ended == self._ended_s():  # else a child would be counted twice, or not at all
                return ended + living

    def children(self) -> list[int]:
        """Return the process ids of the postmaster's children."""
        path = Path(f"/proc/{self.postmaster}/task/{self.postmaster}/children")
        return [int(pid) for pid in path.read_text().split()]

    def private_memory_mib(self) -> float:
        """Return the memory of all backends together in MiB, shared buffers left out."""
        return sum(map(_anonymous_kib, self.children())) / 1024

    def _ended_s(self) -> float:
        """Return the CPU seconds of the postmaster's children that have ended."""
        # The program's name, in brackets, may contain spaces.
        fields = Path(f"/proc/{self.postmaster}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[13]) + int(fields[14])) / CLOCK_TICKS_PER_S


def client_s() -> float:
    """Return the CPU seconds of this process, its threads and its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _process_s(pid: int) -> float:
    """Return the CPU seconds of a living process with one thread; 0 for an ended process."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    except (FileNotFoundError, ProcessLookupError):
        return 0.0


def _anonymous_kib(pid: int) -> int:
    """Return the private memory of a process in KiB; 0 for an ended process."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("RssAnon:")), 0)


def in_turn(rounds: int, *sides: Callable[[], Measured]) -> list[list[Measured]]:
    """Measure all *sides* in each of *rounds*; return the measurements of each side.

    The load of the machine changes over time: sides that are measured in turn share it.
    """
    measured: list[list[Measured]] = [[] for _ in sides]
    for _ in range(rounds):
        for side, results in zip(sides, measured, strict=True):
            results.append(side())
    return measured


def median_ratio(numerators: Iterable[float], denominators: Iterable[float]) -> float:
    """Return the median of the rounds' ratios."""
    pairs = zip(numerators, denominators, strict=True)
    return statistics.median(above / below if below else float("inf") for above, below in pairs)


def cpu(costs: Sequence[Cost]) -> list[float]:
    """Return the CPU seconds of *costs*."""
    return [cost.cpu_s for cost in costs]


def wall(costs: Sequence[Cost]) -> list[float]:
    """Return the wall times of *costs*."""
    return [cost.wall_s for cost in costs]


def seconds(work: Callable[[], object]) -> float:
    """Return the seconds that *work* takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def p95(times: Sequence[float]) -> float:
    """Return the 95th percentile of *times*."""
    return sorted(times)[max(0, -(-len(times) * 95 // 100) - 1)]
