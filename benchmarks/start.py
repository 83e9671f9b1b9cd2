"""Benchmark start: time from a job's POST to its first request."""

import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from benchmarks.common import Scale, Server
from benchmarks.fleet import Node, catlog_node, stock_node, wait_until
from benchmarks.measuring import median_ratio
from benchmarks.report import Result, sample_text, seconds_text

# Timeout of a job's first request.
TIMEOUT_S = 60.0


def run(server: Server, scale: Scale) -> list[Result]:
    """Compare the seconds from a job's POST to its first request at the source with scrapyd.

    Both nodes are idle before and have run the spider once; scrapyd polls ten times a second.
    """
    rounds = scale.times(20)
    catlog_times, scrapyd_times = [], []
    with (
        open_source() as source,
        server.database() as engine,
        catlog_node(server, engine, max_proc=4) as catlog,
        stock_node(server, max_proc=4, poll_interval=0.1) as scrapyd,
    ):
        if not scale.small:
            for node in (catlog, scrapyd):
                source.reached_by(node)
        for _ in range(rounds):
            scrapyd_times.append(source.reached_by(scrapyd))
            catlog_times.append(source.reached_by(catlog))
    return [
        Result(
            "start",
            seconds_text(statistics.median(catlog_times)),
            seconds_text(statistics.median(scrapyd_times)),
            median_ratio(catlog_times, scrapyd_times),
            "<=0.25",
            sample_text(1, rounds),
        )
    ]


class Source(ThreadingHTTPServer):
    """HTTP server that answers every path, and stores the time of each path's first request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: dict[str, float] = {}
        self.has_been_asked = threading.Condition()

    def reached_by(self, node: Node) -> float:
        """Return the seconds until a job of *node* requests a page; wait until *node* is idle."""
        with self.has_been_asked:
            page = str(len(self.asked))
        started = time.perf_counter()
        node.schedule("visit", port=str(self.server_port), page=page)
        path = f"/{page}"
        with self.has_been_asked:
            if not self.has_been_asked.wait_for(lambda: path in self.asked, TIMEOUT_S):
                raise TimeoutError(f"no request within {TIMEOUT_S:g} s")
        wait_until(node.is_idle, TIMEOUT_S, "end of a job", every=0.2)
        return self.asked[path] - started


class Handler(BaseHTTPRequestHandler):
    """Request handler that stores the time before it answers."""

    server: Source

    def do_GET(self) -> None:
        """Answer with an empty page."""
        now = time.perf_counter()
        with self.server.has_been_asked:
            self.server.asked.setdefault(self.path, now)
            self.server.has_been_asked.notify_all()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Discard the log line."""


@contextmanager
def open_source() -> Iterator[Source]:
    """Start a source on loopback."""
    with Source() as source:
        thread = threading.Thread(target=source.serve_forever, args=(0.1,))
        thread.start()
        try:
            yield source
        finally:
            source.shutdown()
            thread.join()
