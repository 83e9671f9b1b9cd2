"""`python -m benchmarks [NAME ...] [--small]`: run benchmarks and print a result line for each.

The line is `bench NAME RATIO TARGET ok|short`. `short` is a finding, not an error.
"""

import argparse
from collections.abc import Callable

from benchmarks import (
    bulk,
    claims,
    commands,
    deep,
    drain,
    idle,
    increments,
    items,
    jobs,
    memory,
    merge,
    nodes,
    pages,
    republish,
    requests,
    start,
    store,
    streams,
    views,
)
from benchmarks.common import Result, Server, note, open_server

BENCHMARKS: dict[str, Callable[[Server, bool], Result]] = {
    "items": items.run,
    "store": store.run,
    "merge": merge.run,
    "republish": republish.run,
    "claims": claims.run,
    "drain": drain.run,
    "views": views.run,
    "memory": memory.run,
    "jobs": jobs.run,
    "start": start.run,
    "nodes": nodes.run,
    "idle": idle.run,
    "commands": commands.run,
    "pages": pages.run,
    "bulk": bulk.run,
    "increments": increments.run,
    "requests": requests.run,
    "deep": deep.run,
    "streams": streams.run,
    "stream_memory": streams.memory,
}


def main() -> None:
    """Run the named benchmarks, or all of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument(
        "--small", action="store_true", help="use tiny sizes, to test the benchmarks themselves"
    )
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(BENCHMARKS))
    if unknown:
        parser.error(f"{unknown[0]!r} is not a benchmark; use {', '.join(BENCHMARKS)}")
    with open_server() as server:
        for name in options.names or BENCHMARKS:
            note(f"{name}: {(BENCHMARKS[name].__doc__ or '').splitlines()[0]}")
            print(BENCHMARKS[name](server, options.small), flush=True)


if __name__ == "__main__":
    main()
