"""Benchmark requests: pages, filters and orders over HTTP."""

import multiprocessing
import re
import socket
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import psycopg2
from sqlalchemy import make_url

from benchmarks.common import Scale, Server
from benchmarks.loads import READ_ROWS, SMALL_READ_ROWS, published
from benchmarks.measuring import in_turn, median_ratio, p95, seconds
from benchmarks.report import Result, note, sample_text
from benchmarks.rows import product
from benchmarks.serving import PATH, Serving, serve
from catlog_scrapy.db.driver import STATEMENT_TIMEOUT_S
from catlog_scrapy.db.session import begin_session

CLIENTS = 8
LIMIT = 100
MAX_P95_MS = 20
ASKED = {
    "page": "",
    "filter": f"&sku={product(77)['sku']}",
    "filter_many": f"&vendor={product(77)['vendor']}",
    "order": "&order=price",
}
STATEMENT = re.compile(r"LOG:  (?:statement|execute [^:]*): (.*)", re.DOTALL)
# The server may read one row more, to see whether there is a further page.
PAGE_LIMIT = re.compile(rf"LIMIT {LIMIT}|LIMIT {LIMIT + 1}")
# Beginning of an entry of the server's log.
ENTRY = re.compile(r"^(?=\d{4}-\d\d-\d\d )", re.MULTILINE)


def run(server: Server, scale: Scale) -> list[Result]:
    """Compare pages, filters and orders per second over HTTP with their SQL by psycopg2.

    Products with indexes for the filters and the order, in pages of 100. The clients are
    eight open connections of another process; each sends the next request, with an API key, as soon
    as it has the response. The peer is one connection in autocommit mode, which runs the statement
    that the server was seen to send for the page, without the server's other statements: the lookup
    of the key and the change stamp. The 95th percentile is that of a single client.
    """
    count, rounds = scale.count(READ_ROWS, SMALL_READ_ROWS), scale.times()
    duration_s, requests = (0.1, 5) if scale.small else (1.5, 200)
    engine = published(server, count)
    url = engine.url.render_as_string(hide_password=False)
    lines = []
    with (
        serve(server, engine) as serving,
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as elsewhere,
    ):
        slowest = {}
        for name, query in ASKED.items():
            message = request(serving, query)
            sql = page_statement(server, lambda m=message: client(serving.port, m, 1))  # type: ignore[misc]
            served, looped = in_turn(
                rounds,
                lambda m=message: elsewhere.submit(  # type: ignore[misc]
                    clients, serving.port, m, duration_s
                ).result(),
                lambda s=sql: elsewhere.submit(loop, url, s, duration_s).result(),  # type: ignore[misc]
            )
            times = elsewhere.submit(client, serving.port, message, requests).result()
            slowest[name] = 1000 * p95(times)
            note(f"{name}: median {1000 * statistics.median(times):.1f} ms, {sql}")
            lines.append(
                Result(
                    name,
                    f"{statistics.median(served):.0f}/s",
                    f"{statistics.median(looped):.0f}/s",
                    median_ratio(served, looped),
                    ">=0.5",
                    sample_text(count, rounds),
                )
            )
    for name, p95_ms in slowest.items():
        sample = f"{requests} requests"
        lines.append(
            Result(f"{name}_p95", f"{p95_ms:.1f} ms", "", p95_ms, f"<={MAX_P95_MS}", sample)
        )
    return lines


def request(serving: Serving, query: str) -> bytes:
    """Return the bytes of a page request."""
    lines = [
        f"GET {PATH}?limit={LIMIT}{query} HTTP/1.1",
        "Host: 127.0.0.1",
        *(f"{name}: {value}" for name, value in serving.headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def page_statement(server: Server, ask: Callable[[], object]) -> str:
    """Return the statement that reads the page of *ask*, as PostgreSQL's log has it.

    It is the last statement with the page's limit. psycopg2 puts the parameters into the text.
    """
    before = len(server.log.read_text())
    try:
        server.run_sql("ALTER SYSTEM SET log_statement = 'all'", "SELECT pg_reload_conf()")
        time.sleep(0.2)  # until the backends have read it
        ask()
    finally:
        server.run_sql("ALTER SYSTEM RESET log_statement", "SELECT pg_reload_conf()")
    entries = ENTRY.split(server.log.read_text()[before:])
    found = [match[1] for entry in entries if (match := STATEMENT.search(entry))]
    pages = [sql for sql in found if PAGE_LIMIT.search(sql) and "products" in sql]
    if not pages:
        raise RuntimeError(f"no statement reads the page: {found}")
    return " ".join(pages[-1].split())


def clients(port: int, message: bytes, duration_s: float) -> float:
    """Return the responses per second of CLIENTS clients."""
    end = time.perf_counter() + duration_s
    with ThreadPoolExecutor(CLIENTS) as threads:
        began = time.perf_counter()
        times = list(threads.map(lambda _: client(port, message, end=end), range(CLIENTS)))
        return sum(map(len, times)) / (time.perf_counter() - began)


def client(
    port: int, message: bytes, requests: int = 1_000_000, end: float = float("inf")
) -> list[float]:
    """Return the seconds of each response to one client until *end*, at most of *requests*.

    Raises RuntimeError for errors. A bare socket takes less of the CPU than http.client.
    """
    times: list[float] = []
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        received = connection.makefile("rb")

        def ask() -> None:
            connection.sendall(message)
            status = received.readline()
            length = 0
            while (line := received.readline()) not in (b"\r\n", b""):
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            body = received.read(length)
            if not status.startswith(b"HTTP/1.1 200 ") or not body.endswith(b"]}"):
                raise RuntimeError(f"{status!r}: {body[:500]!r}")

        while len(times) < requests and time.perf_counter() < end:
            times.append(seconds(ask))
    return times


def loop(url: str, sql: str, duration_s: float) -> float:
    """Return how many times per second psycopg2 executes *sql* and fetches its rows."""
    answered = 0
    connection = psycopg2.connect(
        make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    )
    begin_session(connection, STATEMENT_TIMEOUT_S)
    connection.autocommit = True
    with connection.cursor() as cursor:
        began = time.perf_counter()
        while time.perf_counter() < began + duration_s:
            cursor.execute(sql)
            cursor.fetchall()
            answered += 1
        taken = time.perf_counter() - began
    connection.close()
    return answered / taken
