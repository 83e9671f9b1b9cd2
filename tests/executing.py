"""A server with the executors' routes, and a client that says what it likes."""

import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from scrapy.settings import Settings
from sqlalchemy import Engine

from catlog_scrapy.addon import DEFAULTS
from catlog_scrapy.api.access import Caller
from catlog_scrapy.api.executors import executors
from catlog_scrapy.api.problems import Problem
from catlog_scrapy.database import UNAVAILABLE
from catlog_scrapy.exceptions import NotFound, NotPossible
from tests.looking import free_port


class Bearers:
    """Whoever says a name as token has it, and may execute; `nobody` may not."""

    def permitted(self, resource: str, action: str) -> Any:
        def caller(request: Request) -> Caller:
            name = request.headers.get("authorization", "").removeprefix("Bearer ")
            if not name:
                raise Problem(401, "no token.", headers={"WWW-Authenticate": "Bearer"})
            if name == "nobody":
                raise Problem(403, "you may not.")
            return Caller(f"key:{name}", "service", frozenset(), "127.0.0.1")

        return caller


def application(engine: Engine, **settings: Any) -> FastAPI:
    """The routes under /api/v1, and what the whole server makes of errors."""
    given = Settings({**DEFAULTS, "CATLOG_POLL": 0.05, **settings})
    app = FastAPI()
    app.include_router(executors(engine, Bearers(), given), prefix="/api/v1")
    answers = {NotFound: 404, NotPossible: 409, **dict.fromkeys(UNAVAILABLE, 503)}
    for error, status in answers.items():
        app.add_exception_handler(
            error, lambda _, raised, status=status: Problem(status, str(raised)).response()
        )
    app.add_exception_handler(
        RequestValidationError,
        lambda _, raised: Problem(
            422,
            "wrong.",
            errors=[(".".join(map(str, e["loc"])), e["msg"]) for e in raised.errors()],
        ).response(),
    )
    app.add_exception_handler(Problem, lambda _, raised: raised.response())
    return app


@contextmanager
def serving(app: FastAPI) -> Iterator[int]:
    """The port of 127.0.0.1 where *app* answers."""
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(app, port=port, log_level="warning", timeout_graceful_shutdown=2)
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield port
    finally:
        server.should_exit = True
        thread.join()


@dataclass
class Answer:
    status: int
    body: Any

    @property
    def text(self) -> str:
        """All that it says."""
        return json.dumps(self.body)


@dataclass
class Client:
    """An executor's view of the server at *port*, as *name*."""

    port: int
    name: str = "robot"
    worker: str = "one"
    operations: list[str] = field(default_factory=lambda: ["acme/goods"])

    def ask(
        self, path: str, body: bytes | object = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        said = {"Content-Type": "application/json", "Authorization": f"Bearer {self.name}"}
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
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
        """Claim an attempt, waiting for it; its name."""
        [claimed] = self.claim(wait=20, **given)
        return str(claimed["attempt"])

    def send(self, attempt: str, number: int, *records: object, **lists: Any) -> Answer:
        return self.ask(f"{attempt}/results?batch={number}", {"records": records, **lists})

    def send_raw(self, attempt: str, body: bytes, media: str = "application/json") -> Answer:
        return self.ask(f"{attempt}/results?batch=1", body, {"Content-Type": media})

    def complete(self, attempt: str, batches: int, **given: Any) -> Answer:
        return self.ask(f"{attempt}/complete", {"batches": batches, **given})

    def raw(self, request: bytes) -> bytes:
        """What comes back for these bytes, up to the end of the connection."""
        with socket.create_connection(("127.0.0.1", self.port), 30) as connection:
            connection.sendall(request)
            said = b""
            while chunk := connection.recv(65536):
                said += chunk
            return said
