"""`python -m benchmarks [NAME ...]`: run benchmarks and print their result lines.

A line has what was measured of catlog and of its peer, their ratio, the reach of the ratio, `ok` or
`short`, and the size of the sample: records and rounds, whose median is printed. `short` is a
finding, not an error. Notes go to standard error.
"""

import argparse
import importlib
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from benchmarks.common import Scale, Server, open_server
from benchmarks.report import HEAD, Result, note

Benchmark = Callable[[Server, Scale], list[Result]]

# Modules by name, in the order of `make bench`.
BENCHMARKS = (
    "items",
    "store",
    "merge",
    "publish",
    "disk",
    "spill",
    "views",
    "requests",
    "deep",
    "streams",
    "claims",
    "nodes",
    "drain",
    "ticks",
    "memory",
    "jobs",
    "start",
    "idle",
    "commands",
    "pages",
    "bulk",
    "increments",
)
# Too long for `make bench`.
BY_NAME_ONLY = ("ten_million",)
# Small runs measure nothing, so that several may run at a time.
SMALL_AT_ONCE = 2


def find(name: str) -> Benchmark:
    """Return the benchmark of this name; peers are imported with it."""
    run: Benchmark = importlib.import_module(f"benchmarks.{name}").run
    return run


def main() -> None:
    """Run the named benchmarks, or all but the longest."""
    known = (*BENCHMARKS, *BY_NAME_ONLY)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(known))
    parser.add_argument("--rows", type=int, help="records (or other things) instead of the default")
    parser.add_argument("--rounds", type=int, help="rounds instead of the default")
    parser.add_argument(
        "--small", action="store_true", help="use tiny sizes, to test the benchmarks themselves"
    )
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(known))
    if unknown:
        parser.error(f"{unknown[0]!r} is not a benchmark; use {', '.join(known)}")
    scale = Scale(options.small, options.rows, options.rounds)
    # An ended run stops its server.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    names = options.names or BENCHMARKS
    print(HEAD, flush=True)
    with open_server() as server, ThreadPoolExecutor(SMALL_AT_ONCE) as pool:
        run_all = pool.map if options.small else map
        for results in run_all(lambda name: run_one(name, server, scale), names):
            for result in results:
                print(result, flush=True)


def run_one(name: str, server: Server, scale: Scale) -> list[Result]:
    """Run a benchmark and return its lines."""
    run = find(name)
    note(f"{name}: {(run.__doc__ or '').splitlines()[0]}")
    started = time.perf_counter()
    results = run(server, scale)
    note(f"{name} took {time.perf_counter() - started:.0f} s")
    return results


if __name__ == "__main__":
    main()
