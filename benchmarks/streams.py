"""Benchmarks streams and stream_memory: a whole resource over HTTP."""

import statistics

from sqlalchemy import Engine

from benchmarks.common import Result, Server, note, seconds
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


def run(server: Server, small: bool) -> Result:
    """Compare rows per second of a stream of 1 000 000 products with COPY to psycopg2.

    The peer is `COPY (SELECT * FROM products) TO STDOUT` in PostgreSQL's text format, into a sink.
    A client in this process reads and discards the stream. The slower of CSV and NDJSON counts.
    """
    count, rounds = (2_000, 1) if small else (1_000_000, 3)
    with server.database() as engine, serve(server, engine, count) as serving:
        times: dict[str, list[float]] = {form: [] for form in ("copy", *FORMATS)}
        for _ in range(rounds):
            times["copy"].append(seconds(lambda: copy(engine)))
            for form in FORMATS:
                times[form].append(seconds(lambda form=form: stream(serving, form)))  # type: ignore[misc]
            note(", ".join(f"{form} {taken[-1]:.2f} s" for form, taken in times.items()))
    medians = {form: statistics.median(taken) for form, taken in times.items()}
    return Result("streams", medians["copy"] / max(medians[form] for form in FORMATS), ">=0.25")


def memory(server: Server, small: bool) -> Result:
    """Measure the MiB that a stream of 1 000 000 products adds to the server's memory.

    The baseline is the server's memory after some pages and a short stream. The larger of CSV and
    NDJSON counts.
    """
    count = 2_000 if small else 1_000_000
    added = []
    with server.database() as engine, serve(server, engine, count) as serving:
        connection = serving.connect()
        for _ in range(10):
            serving.ask(connection, f"{PATH}?limit=100")
        connection.close()
        for form in FORMATS:
            stream(serving, form, "&release_year=1980")
        for form in FORMATS:
            before = serving.memory("VmRSS")
            serving.reset_peak()
            stream(serving, form)
            added.append(serving.memory("VmHWM") - before)
            note(f"{form}: {before:.0f} MiB before, {added[-1]:.1f} MiB more at its peak")
    return Result("stream_memory", max(added), "<=32")


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
