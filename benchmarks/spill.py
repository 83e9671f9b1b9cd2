"""Benchmark spill: memory and temporary files of a large publish."""

import threading
from dataclasses import dataclass, field

from sqlalchemy import Engine

from benchmarks.common import Scale, Server, declare, scalar
from benchmarks.loads import load, product_rows, publish
from benchmarks.measuring import Meter
from benchmarks.report import Result, count_text, note, sample_text

FEW = 100_000
MAX_GROWTH_MIB = 300
SAMPLE_INTERVAL_S = 0.02


@dataclass
class MemoryPeak:
    """Largest private memory of all backends in MiB while the `with` block runs."""

    meter: Meter
    mib: float = 0.0
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "MemoryPeak":
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._ended.is_set():
            self.mib = max(self.mib, self.meter.private_memory_mib())
            self._ended.wait(SAMPLE_INTERVAL_S)


def run(server: Server, scale: Scale) -> list[Result]:
    """Compare backend memory (MiB) and temporary files of a publish of many and of few new rows.

    Memory is the private memory of all of PostgreSQL's processes together, sampled 50 times a
    second; shared buffers are left out. Temporary files are those that `pg_stat_database` counts.
    `--rows 5000000` measures the size of the goal.
    """
    count = scale.count(500_000, 400)
    few, many = (measure(server, size) for size in (min(FEW, count // 2), count))
    sample = sample_text(count, 1)
    return [
        Result(
            "publish_memory",
            f"{many[0]:.0f} MiB",
            f"{few[0]:.0f} MiB",
            many[0] - few[0],
            f"<={MAX_GROWTH_MIB}",
            sample,
        ),
        Result("publish_files", f"{many[1]:.0f} MiB", f"{few[1]:.0f} MiB", many[1], "<=0", sample),
    ]


def measure(server: Server, count: int) -> tuple[float, float]:
    """Return the peak of memory and the size of temporary files of a publish, in MiB."""
    with server.database() as engine:
        declare(server, engine, "in_batches")
        catalog = load(engine, product_rows(count))
        before = temporary_mib(engine)
        with MemoryPeak(server.meter) as peak:
            cost = server.meter.measure(lambda: publish(engine, catalog))
        written = temporary_mib(engine) - before
    note(
        f"{count_text(count)} rows: {peak.mib:.0f} MiB in backends, {written:.1f} MiB in temporary"
        f" files, {cost}"
    )
    return peak.mib, written


def temporary_mib(engine: Engine) -> float:
    """Return the size of all temporary files that the database has written so far."""
    # Backends report their statistics when they end, else up to a second later.
    engine.dispose()
    query = "SELECT temp_bytes FROM pg_stat_database WHERE datname = current_database()"
    return scalar(engine, query) / 2**20
