"""How many pages a second the server answers."""

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
from catlog_scrapy.store.views.typed import all_kinds, indexed_view

CLIENTS = 8


def run(server: Server, small: bool) -> Result:
    """Pages of 100 products a second over HTTP, against their SQL through psycopg2 in a loop.

    The clients are eight kept connections of another process; each asks again as soon as it has
    its answer, and with a key, which the server looks up each time. The loop is one connection of
    one process, in autocommit, and its statement is the very one by which the server reads the
    page, without what that asks besides: whose the key is, whether anything has changed.
    """
    count, rounds, seconds = (200, 1, 0.2) if small else (100_000, 5, 5.0)
    mine, theirs = [], []
    with (
        server.database() as engine,
        serve(server, engine, count) as serving,
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as elsewhere,
    ):
        url = engine.url.render_as_string(hide_password=False)
        sql = statement(engine)
        for _ in range(rounds):
            theirs.append(elsewhere.submit(loop, url, *sql, seconds).result())
            mine.append(elsewhere.submit(clients, serving.port, request(serving), seconds).result())
            note(f"catlog {mine[-1]:.0f} pages a second, psycopg2 {theirs[-1]:.0f}")
    return Result("requests", statistics.median(mine) / statistics.median(theirs), ">=0.3")


def request(serving: Serving) -> bytes:
    """The request of a page, as it is sent."""
    lines = [
        f"GET {PATH}?limit=100 HTTP/1.1",
        "Host: 127.0.0.1",
        *(f"{name}: {value}" for name, value in serving.headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def clients(port: int, asked: bytes, seconds: float) -> float:
    """Answers a second that CLIENTS get together."""
    end = time.perf_counter() + seconds
    with ThreadPoolExecutor(CLIENTS) as threads:
        began = time.perf_counter()
        counts = list(threads.map(lambda _: client(port, asked, end), range(CLIENTS)))
        return sum(counts) / (time.perf_counter() - began)


def client(port: int, asked: bytes, end: float) -> int:
    """How often one client is answered until *end*. Raises RuntimeError for another answer.

    Less than http.client does, so that its share of the machine is small.
    """
    answered = 0
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        received = connection.makefile("rb")
        while time.perf_counter() < end:
            connection.sendall(asked)
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
    """The statement by which the server reads the page, and its values."""
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
    """How often a second psycopg2 executes *sql* and fetches its rows."""
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
