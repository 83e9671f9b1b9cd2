"""Benchmark requests: pages per second over HTTP."""

import multiprocessing
import socket
import statistics
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import psycopg2
from sqlalchemy import Engine, event, make_url

from benchmarks.common import Result, Server, note
from benchmarks.serving import PATH, Serving, serve
from catlog_scrapy.db.driver import SERVER_OPTIONS
from catlog_scrapy.store.reading.pages import OrderTerm, PageQuery, PageSource, describe, read_page
from catlog_scrapy.store.schemes import all_kinds
from catlog_scrapy.store.views.typed import indexed_view

CLIENTS = 8


def run(server: Server, small: bool) -> Result:
    """Compare pages of 100 products per second over HTTP with their SQL in a psycopg2 loop.

    The clients are eight open connections of another process; each sends the next request, with an
    API key, as soon as it has the response. The loop is one connection in autocommit mode. It runs
    the statement by which the server reads the page, without the server's other queries: the
    lookup of the key and the change stamp.
    """
    count, rounds, seconds = (200, 1, 0.2) if small else (100_000, 5, 5.0)
    served, looped = [], []
    with (
        server.database() as engine,
        serve(server, engine, count) as serving,
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as elsewhere,
    ):
        url = engine.url.render_as_string(hide_password=False)
        sql = statement(engine)
        for _ in range(rounds):
            looped.append(elsewhere.submit(loop, url, *sql, seconds).result())
            served.append(
                elsewhere.submit(clients, serving.port, request(serving), seconds).result()
            )
            note(f"catlog {served[-1]:.0f} pages a second, psycopg2 {looped[-1]:.0f}")
    return Result("requests", statistics.median(served) / statistics.median(looped), ">=0.3")


def request(serving: Serving) -> bytes:
    """Return the bytes of a page request."""
    lines = [
        f"GET {PATH}?limit=100 HTTP/1.1",
        "Host: 127.0.0.1",
        *(f"{name}: {value}" for name, value in serving.headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def clients(port: int, message: bytes, seconds: float) -> float:
    """Return the responses per second of CLIENTS clients."""
    end = time.perf_counter() + seconds
    with ThreadPoolExecutor(CLIENTS) as threads:
        began = time.perf_counter()
        counts = list(threads.map(lambda _: client(port, message, end), range(CLIENTS)))
        return sum(counts) / (time.perf_counter() - began)


def client(port: int, message: bytes, end: float) -> int:
    """Return the number of responses to one client until *end*. Raises RuntimeError for errors.

    A bare socket takes less of the CPU than http.client.
    """
    answered = 0
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        received = connection.makefile("rb")
        while time.perf_counter() < end:
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
            answered += 1
    return answered


def statement(engine: Engine) -> tuple[str, dict[str, Any]]:
    """Return the statement by which the server reads the page, and its parameters."""
    sent: list[tuple[str, dict[str, Any]]] = []

    def keep(_: Any, __: Any, sql: str, values: dict[str, Any], *___: Any) -> None:
        sent.append((sql, values))

    with engine.connect() as connection:
        sql = indexed_view(all_kinds(connection)["products"])
        columns = describe(connection, sql)
        source = PageSource(
            sql, columns, tuple(OrderTerm(n) for n in ("_provider", "_kind", "_key"))
        )
        shown = tuple(name for name in columns if not name.startswith("_"))
        event.listen(connection, "before_cursor_execute", keep)
        read_page(connection, source, PageQuery(shown, limit=100))
    return sent[-1]


def loop(url: str, sql: str, values: dict[str, Any], seconds: float) -> float:
    """Return how many times per second psycopg2 executes *sql* and fetches its rows."""
    answered = 0
    connection = psycopg2.connect(
        make_url(url).set(drivername="postgresql").render_as_string(hide_password=False),
        options=SERVER_OPTIONS,
    )
    connection.autocommit = True
    with connection.cursor() as cursor:
        began = time.perf_counter()
        while time.perf_counter() < began + seconds:
            cursor.execute(sql, values)
            cursor.fetchall()
            answered += 1
        taken = time.perf_counter() - began
    connection.close()
    return answered / taken
