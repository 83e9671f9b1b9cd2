"""Benchmark streams: a whole resource over HTTP."""

import statistics

from sqlalchemy import Engine

from benchmarks.common import Scale, Server
from benchmarks.loads import READ_ROWS, SMALL_READ_ROWS, published
from benchmarks.measuring import median_ratio, seconds
from benchmarks.report import Result, note, sample_text, seconds_text
from benchmarks.serving import PATH, Serving, serve

FORMATS = ("csv", "ndjson")
CHUNK = 2**16


class Sink:
    """File that counts and discards what is written to it."""

    def __init__(self) -> None:
        self.bytes = 0

    def write(self, part: bytes) -> int:
        """Count the bytes of *part*."""
        self.bytes += len(part)
        return len(part)


def run(server: Server, scale: Scale) -> list[Result]:
    """Compare a stream of 500 000 products with COPY to psycopg2, by time and by memory.

    The peer is `COPY (SELECT * FROM products) TO STDOUT` in PostgreSQL's text format, into a sink.
    A client in this process reads and discards the stream. The slower of CSV and NDJSON counts.
    The memory is what a stream adds to the server, at its peak.
    """
    count, rounds = scale.count(READ_ROWS, SMALL_READ_ROWS), scale.times(3)
    engine = published(server, count)
    with serve(server, engine) as serving:
        memory = added_memory(serving)
        times: dict[str, list[float]] = {form: [] for form in ("copy", *FORMATS)}
        for _ in range(rounds):
            times["copy"].append(seconds(lambda: copy(engine)))
            for form in FORMATS:
                times[form].append(seconds(lambda form=form: stream(serving, form)))  # type: ignore[misc]
            note(", ".join(f"{form} {taken[-1]:.2f} s" for form, taken in times.items()))
    slower = max((times[form] for form in FORMATS), key=statistics.median)
    return [
        Result(
            "streams",
            seconds_text(statistics.median(slower)),
            seconds_text(statistics.median(times["copy"])),
            median_ratio(times["copy"], slower),
            ">=0.25",
            sample_text(count, rounds),
        ),
        Result("stream_memory", f"{memory:.1f} MiB", "", memory, "<=32", sample_text(count, 1)),
    ]


def added_memory(serving: Serving) -> float:
    """Return the MiB that a stream adds to a server that has just started.

    The baseline is the server's memory after some pages and a short stream. The larger of CSV and
    NDJSON counts.
    """
    connection = serving.connect()
    for _ in range(10):
        serving.ask(connection, f"{PATH}?limit=100")
    connection.close()
    for form in FORMATS:
        stream(serving, form, "&release_year=1980")
    added = []
    for form in FORMATS:
        before = serving.memory("VmRSS")
        serving.reset_peak()
        stream(serving, form)
        added.append(serving.memory("VmHWM") - before)
        note(f"{form}: {before:.0f} MiB before, {added[-1]:.1f} MiB more at its peak")
    return max(added)


def copy(engine: Engine) -> int:
    """Return the number of bytes of all products as COPY writes them."""
    sink = Sink()
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        if driver is None:
            raise RuntimeError("the connection has no driver connection; this is a bug.")
        with driver.cursor() as cursor:
            cursor.copy_expert("COPY (SELECT * FROM public.products) TO STDOUT", sink)
    return sink.bytes


def stream(serving: Serving, form: str, filters: str = "") -> int:
    """Return the number of bytes of all products as the server streams them.

    Raises RuntimeError for an error.
    """
    connection = serving.connect()
    connection.request("GET", f"{PATH}?format={form}{filters}", headers=serving.headers)
    response = connection.getresponse()
    if response.status != 200:
        raise RuntimeError(f"{form} answers {response.status}")
    received = 0
    while part := response.read1(CHUNK):
        received += len(part)
    connection.close()
    return received
