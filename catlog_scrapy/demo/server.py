"""One local HTTP server for all demonstration sources: `python -m catlog_scrapy.demo.server`.

It answers on the loopback interface only, always with the same bytes for the same number of
changes. Tests can make it misbehave.
"""

import argparse
import contextlib
import socket
import sys
import threading
from collections.abc import Collection
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from catlog_scrapy.demo import fuel, hallmark

DEFAULT_PORT = 8765
JSON = "application/json"
HTML = "text/html; charset=utf-8"
TEXT = "text/plain; charset=utf-8"


@dataclass
class Misbehaviour:
    """What a path prefix gets instead of its page, `times` times or, with None, for ever."""

    path_prefix: str
    status: int | None = None
    delay: float = 0.0
    body: bytes | None = None
    redirect: str | None = None
    close: bool = False
    times: int | None = None


class DemoServer:
    """The sources under one URL. `port` 0 takes a free one, which a second start keeps.

    `requests` lists the path and query of every request that came, in order.
    """

    def __init__(
        self,
        port: int = 0,
        *,
        fuel_delay: float = 4.0,
        years: Collection[int] = hallmark.YEARS,
    ) -> None:
        """*fuel_delay* is how many seconds the stations take; the original takes four.

        *years* are those that the shop knows.
        """
        self.port = port
        self.fuel_delay = fuel_delay
        self.years = years
        self.step = 0
        self.requests: list[str] = []
        self.stopping = threading.Event()
        self._misbehaviours: list[Misbehaviour] = []
        self._lock = threading.Lock()
        self._http: _HttpServer | None = None

    @property
    def url(self) -> str:
        """Its address, without a slash at the end; known once it has started."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Self:
        """Listen, and answer in threads of its own. Raises OSError if the port is taken."""
        self.stopping.clear()
        self._http = _HttpServer(self)
        self.port = self._http.server_port
        threading.Thread(
            target=self._http.serve_forever, args=(0.05,), name="demo-server", daemon=True
        ).start()
        return self

    def stop(self) -> None:
        """Stop listening and drop every open connection, kept-alive ones too."""
        if self._http is not None:
            self.stopping.set()
            self._http.shutdown()
            self._http.server_close()
            self._http.drop_connections()
            self._http = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def change(self) -> None:
        """Move the world one step on: see the modules of the sources for what then differs."""
        with self._lock:
            self.step += 1

    def misbehave(self, path_prefix: str, **how: Any) -> None:
        """Treat requests under *path_prefix* as *how* says: see Misbehaviour. The last wins."""
        with self._lock:
            self._misbehaviours.insert(0, Misbehaviour(path_prefix, **how))

    def behave(self) -> None:
        """Forget every misbehaviour."""
        with self._lock:
            self._misbehaviours.clear()

    def received(self, path: str) -> Misbehaviour | None:
        """Note a request for *path*; return how to misbehave, if so."""
        with self._lock:
            self.requests.append(path)
            for rule in self._misbehaviours:
                if path.startswith(rule.path_prefix) and rule.times != 0:
                    if rule.times is not None:
                        rule.times -= 1
                    return rule
        return None

    def page(self, path: str) -> tuple[str, bytes] | None:
        """The content type and body of *path* (with its query) now; None where nothing is."""
        url = urlsplit(path)
        match url.path.strip("/").split("/"):
            case ["robots.txt"]:
                return TEXT, b"User-agent: *\nAllow: /\n"
            case ["fuel", "fuel-stations"]:
                self.stopping.wait(self.fuel_delay)
                return JSON, fuel.stations(self.step)
            case ["fuel", "fuel-prices"]:
                return JSON, fuel.prices(self.step)
            case ["hallmark"]:
                return HTML, hallmark.index_page(self.years)
            case ["hallmark", "year", text] if text.isdecimal() and int(text) in self.years:
                number = parse_qs(url.query).get("page", ["1"])[0]
                if number.isdecimal() and 1 <= int(number) <= hallmark.pages(int(text)):
                    return HTML, hallmark.year_page(int(text), int(number), self.step)
        return None


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, demo: DemoServer) -> None:
        self.demo = demo
        self.connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", demo.port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that goes away is no news; anything else is a bug of ours.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def drop_connections(self) -> None:
        for connection in list(self.connections):
            # The client may be faster.
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    server: _HttpServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    # Head and body leave in one packet.
    wbufsize = -1

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        super().finish()

    def do_GET(self) -> None:
        demo = self.server.demo
        rule = demo.received(self.path)
        if rule and rule.delay:
            demo.stopping.wait(rule.delay)
        if rule and rule.close:
            self.close_connection = True
        elif rule and rule.redirect:
            self.answer(rule.status or HTTPStatus.FOUND, TEXT, b"", location=rule.redirect)
        elif rule and rule.body is not None:
            kind = HTML if self.path.startswith(hallmark.ROOT) else JSON
            self.answer(rule.status or HTTPStatus.OK, kind, rule.body)
        elif rule and rule.status:
            self.answer(rule.status, TEXT, HTTPStatus(rule.status).phrase.encode())
        elif page := demo.page(self.path):
            self.answer(HTTPStatus.OK, *page)
        else:
            self.answer(HTTPStatus.NOT_FOUND, TEXT, b"Not Found")

    def answer(self, status: int, content_type: str, body: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.title(), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def main(arguments: list[str] | None = None) -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Serve the demonstration sources locally.")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT)
    parser.add_argument("--fuel-delay", type=float, default=4.0, metavar="SECONDS")
    options = parser.parse_args(arguments)
    try:
        with DemoServer(options.port, fuel_delay=options.fuel_delay) as server:
            sys.stdout.write(f"{server.url}/fuel\n{server.url}/hallmark\n")
            sys.stdout.flush()
            threading.Event().wait()
    except KeyboardInterrupt:
        pass
    except OSError as error:
        parser.exit(2, f"Port {options.port} cannot be used: {error.strerror}; choose another.\n")


if __name__ == "__main__":
    main()
