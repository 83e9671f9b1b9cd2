"""Server for tests, and a client for external executors."""

import json
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from typing import Any

from fastapi import FastAPI
from scrapy.settings import Settings
from sqlalchemy import Engine

from catlog_scrapy.api.app import create_app
from catlog_scrapy.api.server import make_server
from catlog_scrapy.config import DEFAULTS
from catlog_scrapy.declarations.capabilities import Capabilities
from catlog_scrapy.declarations.resources import Resources
from catlog_scrapy.declarations.roles import DEFAULT_ROLES
from tests.support.waiting import WAIT_LIMIT_S, free_port

NO_RESOURCES = Resources((), DEFAULT_ROLES)
SERVING = {**DEFAULTS, "CATLOG_GRACE": 2, "CATLOG_API_TIMEOUT": WAIT_LIMIT_S}
NO_SPIDERS = Capabilities("shop", {}, {})


def application(
    engine: Engine,
    resources: Resources = NO_RESOURCES,
    capabilities: Capabilities = NO_SPIDERS,
    **settings: Any,
) -> FastAPI:
    """Return the complete application, with a short polling interval."""
    given = Settings(
        {
            **DEFAULTS,
            "CATLOG_HOME": tempfile.gettempdir(),
            "CATLOG_POLL": 0.05,
            "CATLOG_API_TIMEOUT": WAIT_LIMIT_S,
            **settings,
        }
    )
    return create_app(engine, given, resources, capabilities)


@contextmanager
def serving(app: FastAPI, **settings: Any) -> Iterator[int]:
    """Serve *app* on 127.0.0.1 as `scrapy serve` does; yield the port, then send SIGINT."""
    port = free_port()
    server = make_server(app, Settings({**SERVING, **settings}))
    with socket.create_server(("127.0.0.1", port), backlog=1024) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        try:
            yield port
        finally:
            server.handle_exit(signal.SIGINT, None)
            thread.join()


@dataclass
class Answer:
    status: int
    body: Any

    @property
    def text(self) -> str:
        """Return the body as JSON."""
        return json.dumps(self.body)


@dataclass
class Client:
    """Client of an external executor for the server at *port*, with a *key*."""

    port: int
    key: str
    worker: str = "one"
    operations: list[str] = field(default_factory=lambda: ["acme/goods"])

    def ask(
        self, path: str, body: bytes | object = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        said = {"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"}
        connection = HTTPConnection("127.0.0.1", self.port, timeout=WAIT_LIMIT_S)
        try:
            connection.request(
                "POST", f"/api/v1/attempts/{path}", data, {**said, **(headers or {})}
            )
            answer = connection.getresponse()
            return Answer(answer.status, json.loads(answer.read() or b"null"))
        finally:
            connection.close()

    def claim(self, **given: Any) -> list[dict[str, Any]]:
        wanted = {"operations": self.operations, "worker": self.worker, **given}
        answer = self.ask("claim", wanted)
        assert answer.status == 200, answer
        attempts: list[dict[str, Any]] = answer.body["attempts"]
        return attempts

    def claim_one(self, **given: Any) -> str:
        """Wait for an attempt, claim it, and return its name."""
        [claimed] = self.claim(wait=20, **given)
        return str(claimed["attempt"])

    def send(self, attempt: str, number: int, *records: object, **lists: Any) -> Answer:
        return self.ask(f"{attempt}/results?batch={number}", {"records": records, **lists})

    def send_raw(self, attempt: str, body: bytes, media: str = "application/json") -> Answer:
        return self.ask(f"{attempt}/results?batch=1", body, {"Content-Type": media})

    def complete(self, attempt: str, batches: int, **given: Any) -> Answer:
        return self.ask(f"{attempt}/complete", {"batches": batches, **given})

    def raw(self, request: bytes) -> bytes:
        """Send bytes and return all that the server sends until it closes the connection."""
        with socket.create_connection(("127.0.0.1", self.port), WAIT_LIMIT_S) as connection:
            connection.sendall(request)
            said = b""
            while chunk := connection.recv(65536):
                said += chunk
            return said
