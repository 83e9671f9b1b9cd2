"""Whether a page costs more the deeper it lies."""

import statistics
from http.client import HTTPConnection

from benchmarks.common import Result, Server, note, seconds
from benchmarks.serving import PATH, Serving, serve

# A page, and the longer ones that lead to the deep one.
ROWS, LONG = 100, 1000
DEPTH = 10_000
ROUNDS = 300


def run(server: Server, small: bool) -> Result:
    """Time of page 10 000 of 1 000 000 products by cursor, against page 1 by cursor.

    Both in turn over one kept connection. Page 10 000 is the last one; it is there to be asked for
    because its cursor is taken from the pages of 1000 rows before it. Noted besides: the same in an
    order that no index has.
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
    """The median seconds of the first page and of the one that ends with the row *count*."""
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
