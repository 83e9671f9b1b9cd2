"""Result lines of the benchmarks, of at most 80 columns, and notes about their measurements."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.measuring import Cost, cpu, median_ratio, wall

HEAD = f"{'line':<16} {'measured':>13} {'peer':>13} {'ratio':>7} {'reach':>7}        sample"


@dataclass(frozen=True)
class Result:
    """Result line of a benchmark.

    `measured` and `peer` are medians with their units, `reach` is `<=` or `>=` and a number.
    `sample` is the number of records (or of other things) and of rounds.
    """

    name: str
    measured: str
    peer: str
    ratio: float
    reach: str
    sample: str = ""

    @property
    def ok(self) -> bool:
        """True if the ratio is within reach."""
        reach = float(self.reach[2:])
        return self.ratio <= reach if self.reach.startswith("<=") else self.ratio >= reach

    def __str__(self) -> str:
        verdict = "ok" if self.ok else "short"
        return (
            f"{self.name:<16} {self.measured:>13} {self.peer:>13} {self.ratio:>7.3g}"
            f" {self.reach:>7} {verdict:<6} {self.sample}"
        ).rstrip()


def note(what: str) -> None:
    """Print a comment line about a measurement, beside the result lines."""
    print(f"# {what}", file=sys.stderr, flush=True)


def count_text(count: int) -> str:
    """Return a short form of *count*: 200k, 1M."""
    for unit, size in (("M", 1_000_000), ("k", 1_000)):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return str(count)


def sample_text(count: int, rounds: int) -> str:
    """Return the column `sample`: the count and, for several rounds, their number."""
    return f"{count_text(count)} x{rounds}" if rounds > 1 else count_text(count)


def seconds_text(taken_s: float, what: str = "") -> str:
    """Return a time with a unit that suits it, and *what* it is a time of."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if taken_s >= size:
            return f"{taken_s / size:.3g} {unit} {what}".rstrip()
    return f"{taken_s * 1e6:.2g} us {what}".rstrip()


def compare_cpu(
    name: str, measured: Sequence[Cost], peer: Sequence[Cost], reach: str, count: int
) -> Result:
    """Return the line that compares the CPU time of a record, of client and PostgreSQL.

    A reach of `<=` is on the time of catlog by that of the peer, a reach of `>=` on the inverse:
    how many times as many records catlog can do.
    """
    return _compare(name, cpu(measured), cpu(peer), reach, count, what="CPU")


def compare_wall(
    name: str, measured: Sequence[Cost], peer: Sequence[Cost], reach: str, count: int
) -> Result:
    """Return the line that compares the wall time of a record; see `compare_cpu`."""
    return _compare(name, wall(measured), wall(peer), reach, count, what="wall")


def _compare(
    name: str, ours: list[float], peers: list[float], reach: str, count: int, *, what: str
) -> Result:
    sides = (ours, peers) if reach.startswith("<=") else (peers, ours)
    return Result(
        name,
        seconds_text(median(ours) / count, what),
        seconds_text(median(peers) / count, what),
        median_ratio(*sides),
        reach,
        sample_text(count, len(ours)),
    )


def note_costs(count: int, **sides: Sequence[Cost]) -> None:
    """Print the median costs of each side, by record, client and PostgreSQL apart."""
    for side, costs in sides.items():
        parts = {
            "wall": median(wall(costs)),
            "CPU": median(cpu(costs)),
            "client": median(cost.client_s for cost in costs),
            "PostgreSQL": median(cost.server_s for cost in costs),
        }
        shown = ", ".join(f"{name} {1e6 * taken / count:.2f}" for name, taken in parts.items())
        note(f"{side}, us a record: {shown}")
