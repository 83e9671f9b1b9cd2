"""Benchmark deep: time of a deep page against the first page."""

import statistics
from http.client import HTTPConnection

from benchmarks.common import Result, Server, note, seconds
from benchmarks.serving import PATH, Serving, serve

# Rows of a measured page, and of the longer pages that lead to the deep page.
ROWS, LONG = 100, 1000
DEPTH = 10_000
ROUNDS = 300


def run(server: Server, small: bool) -> Result:
    """Compare the time of page 10 000 of 1 000 000 products with page 1, both by cursor.

    The pages are requested in turn over one connection. The cursor of page 10 000 comes from pages
    of 1000 rows before it. Also printed: the same in an order without an index.
    """
    count, rounds, by_price = (2_000, 3, 1) if small else (ROWS * DEPTH, ROUNDS, 5)
    with server.database() as engine, serve(server, engine, count) as serving:
        connection = serving.connect()
        first, last = by_cursor(serving, connection, count, rounds)
        ordered = by_cursor(serving, connection, min(count, 100_000), by_price, "&order=price")
        connection.close()
    note(f"page 1 {first * 1000:.2f} ms, page {count // ROWS} {last * 1000:.2f} ms")
    note(
        f"by price, page 1 {ordered[0] * 1000:.0f} ms,"
        f" page {min(count, 100_000) // ROWS} {ordered[1] * 1000:.0f} ms"
    )
    return Result("deep", last / first, "<=1.2")


def by_cursor(
    serving: Serving, connection: HTTPConnection, count: int, rounds: int, order: str = ""
) -> tuple[float, float]:
    """Return the median seconds of the first page and of the page that ends at row *count*."""
    walked = f"{PATH}?limit={LONG}&cursor={order}"
    for _ in range(count // LONG - 1):
        walked = serving.follow(connection, walked)
    before = walked.replace(f"limit={LONG}", f"limit={LONG - ROWS}")
    pages = (
        f"{PATH}?limit={ROWS}&cursor={order}",
        serving.follow(connection, before).replace(f"limit={LONG - ROWS}", f"limit={ROWS}"),
    )
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for page, taken in zip(pages, times, strict=True):
            taken.append(seconds(lambda page=page: serving.ask(connection, page)))  # type: ignore[misc]
    return statistics.median(times[0]), statistics.median(times[1])
