"""Benchmark deep: time of a deep page against the first page."""

import statistics
from http.client import HTTPConnection

from benchmarks.common import Scale, Server
from benchmarks.loads import READ_ROWS, SMALL_READ_ROWS, published
from benchmarks.measuring import seconds
from benchmarks.report import Result, note, sample_text, seconds_text
from benchmarks.serving import PATH, Serving, serve

# Rows of a measured page, and of the longer pages that lead to the deep page.
ROWS, LONG = 100, 1000
REQUESTS = 300


def run(server: Server, scale: Scale) -> list[Result]:
    """Compare the time of the last page of 500 000 products with page 1, both by cursor.

    The pages are requested in turn over one connection. The cursor of the last page comes from
    pages of 1000 rows before it. Also printed: the same in the order of a field.
    """
    count, requests = scale.count(READ_ROWS, SMALL_READ_ROWS), 3 if scale.small else REQUESTS
    few = min(count, 100_000)
    engine = published(server, count)
    with serve(server, engine) as serving:
        connection = serving.connect()
        first, last = by_cursor(serving, connection, count, requests)
        ordered = by_cursor(serving, connection, few, min(requests, 5), "&order=price")
        connection.close()
    note(
        f"by price, page 1 {ordered[0] * 1000:.1f} ms,"
        f" page {few // ROWS} {ordered[1] * 1000:.1f} ms"
    )
    sample = sample_text(count, requests)
    return [Result("deep", seconds_text(last), seconds_text(first), last / first, "<=1.2", sample)]


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
