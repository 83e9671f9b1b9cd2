"""Local HTTP server of all demo sources: `python -m catlog_scrapy.demo.server`.

The server listens on the loopback interface only. Its replies depend only on the request and on
the number of changes. Tests can inject faults.
"""

import argparse
import contextlib
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

from catlog_scrapy.demo import fuel, hallmark, hooked, learning, ornament_shop, samokat, school
from catlog_scrapy.demo.source import TEXT, YEARS, DemoReply, DemoRequest, World

DEFAULT_PORT = 8765
SOURCES = {
    source.name: source
    for source in (
        fuel.SOURCE,
        hallmark.SOURCE,
        hooked.SOURCE,
        ornament_shop.SOURCE,
        learning.SOURCE,
        school.SOURCE,
        samokat.SOURCE,
    )
}
ROBOTS = DemoReply(b"User-agent: *\nAllow: /\n", TEXT)


@dataclass
class Misbehaviour:
    """Fault of all paths with a prefix, for `times` requests or, with None, for all requests.

    After `delay` seconds, the server closes the connection (`close`), or replies with a redirect,
    with `body`, with a bare `status`, or with the correct reply, which `rewrite` may change. `cut`
    closes the connection after half of the body.
    """

    path_prefix: str
    status: int | None = None
    delay: float = 0.0
    body: bytes | None = None
    redirect: str | None = None
    close: bool = False
    cut: bool = False
    rewrite: Callable[[bytes], bytes] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    times: int | None = None


@dataclass
class Visit:
    """Received request: path with query, and `time.monotonic()` of its start and end."""

    path: str
    began: float
    ended: float | None = None
    status: int | None = None


class DemoServer:
    """Server of all sources. With port 0 it takes a free port, which a second start keeps.

    `visits` lists all received requests in order.
    """

    def __init__(
        self, port: int = 0, *, fuel_delay: float = 4.0, years: Collection[int] = YEARS
    ) -> None:
        """Prepare a server of shops with *years*, and fuel stations that take *fuel_delay* seconds.

        The original fuel stations take four seconds.
        """
        self.port = port
        self.world = World(years=years, fuel_delay=fuel_delay)
        self.visits: list[Visit] = []
        self._misbehaviours: list[Misbehaviour] = []
        self._lock = threading.Lock()
        self._http: _HttpServer | None = None

    @property
    def url(self) -> str:
        """Return the server's URL without a trailing slash. The server must have started."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def requests(self) -> list[str]:
        """Return the path with query of each received request, in order."""
        return [visit.path for visit in self.visits]

    def start(self) -> Self:
        """Listen, and reply in threads. Raises OSError if the port is taken."""
        self.world.stopping.clear()
        self._http = _HttpServer(self)
        self.port = self._http.server_port
        threading.Thread(
            target=self._http.serve_forever, args=(0.05,), name="demo-server", daemon=True
        ).start()
        return self

    def stop(self) -> None:
        """Stop listening, and drop all open connections, idle ones too."""
        if self._http is not None:
            self.world.stopping.set()
            self._http.shutdown()
            self._http.server_close()
            self._http.drop_connections()
            self._http = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def change(self) -> None:
        """Move the world one step on. The modules of the sources describe the changes."""
        with self._lock:
            self.world.step += 1

    def misbehave(self, path_prefix: str, **how: Any) -> None:
        """Inject a fault: see Misbehaviour. A later fault comes before earlier ones."""
        with self._lock:
            self._misbehaviours.insert(0, Misbehaviour(path_prefix, **how))

    def behave(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._misbehaviours.clear()

    def received(self, path: str) -> tuple[Visit, Misbehaviour | None]:
        """Record a request for *path*, and return it with its fault, if any."""
        visit = Visit(path, time.monotonic())
        with self._lock:
            self.visits.append(visit)
            for rule in self._misbehaviours:
                if path.startswith(rule.path_prefix) and rule.times != 0:
                    if rule.times is not None:
                        rule.times -= 1
                    return visit, rule
        return visit, None

    def respond(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> DemoReply | None:
        """Return the reply to a request for *path* with query, or None for an unknown path."""
        url = urlsplit(path)
        if url.path == "/robots.txt":
            return ROBOTS
        name, _, rest = url.path.strip("/").partition("/")
        source = SOURCES.get(name)
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        request = DemoRequest(method, rest, query, headers, body)
        return source.respond(request, self.world) if source else None


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, demo: DemoServer) -> None:
        self.demo = demo
        self.connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", demo.port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # Clients may disconnect at any time. Any other error is a bug of the server.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def drop_connections(self) -> None:
        for connection in list(self.connections):
            # The client may have closed the connection first.
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    server: _HttpServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    # Buffer the reply, so that head and body leave in one packet.
    wbufsize = -1

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        super().finish()

    def do_GET(self) -> None:
        demo = self.server.demo
        visit, rule = demo.received(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if rule and rule.delay:
            demo.world.wait(rule.delay)
        if rule and rule.close:
            self.close_connection = True
        else:
            reply = self._reply(rule, body)
            visit.status = reply.status
            self._send(reply, cut=bool(rule and rule.cut))
        visit.ended = time.monotonic()

    do_POST = do_GET

    def _reply(self, rule: Misbehaviour | None, body: bytes) -> DemoReply:
        headers = rule.headers if rule else {}
        if rule and rule.redirect:
            status = rule.status or HTTPStatus.FOUND
            return DemoReply(b"", TEXT, status, {**headers, "Location": rule.redirect})
        if rule and rule.status and rule.body is None:
            return DemoReply(HTTPStatus(rule.status).phrase.encode(), TEXT, rule.status, headers)
        correct = self.server.demo.respond(self.command, self.path, dict(self.headers), body)
        reply = correct or DemoReply(b"Not Found", TEXT, HTTPStatus.NOT_FOUND)
        if rule and rule.body is not None:
            return DemoReply(rule.body, reply.content_type, rule.status or HTTPStatus.OK, headers)
        if rule and rule.rewrite:
            return replace(reply, body=rule.rewrite(reply.body))
        return reply

    def _send(self, reply: DemoReply, *, cut: bool) -> None:
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(reply.body)))
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body[: len(reply.body) // 2] if cut else reply.body)
        self.close_connection = self.close_connection or cut

    def log_message(self, format: str, *args: Any) -> None:
        pass


def main(arguments: list[str] | None = None) -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Serve the demonstration sources locally.")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT)
    parser.add_argument("--fuel-delay", type=float, default=4.0, metavar="SECONDS")
    parser.add_argument(
        "--step", type=int, default=0, metavar="CHANGES", help="changes made already"
    )
    options = parser.parse_args(arguments)
    try:
        with DemoServer(options.port, fuel_delay=options.fuel_delay) as server:
            server.world.step = options.step
            sys.stdout.writelines(f"{server.url}/{name}\n" for name in SOURCES)
            sys.stdout.flush()
            threading.Event().wait()
    except KeyboardInterrupt:
        pass
    except OSError as error:
        parser.exit(
            2, f"port {options.port} cannot be used: {error.strerror}; choose another with --port\n"
        )


if __name__ == "__main__":
    main()
