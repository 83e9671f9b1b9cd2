"""Timeouts of connections whose client is silent or slow."""

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest
from fastapi import FastAPI, Response

from catlog_scrapy.api import server as protocol
from tests.support.executor import serving
from tests.support.waiting import WAIT_LIMIT_S

PATIENCE = 0.5
HEALTH = b"GET /health HTTP/1.1\r\nHost: here\r\n"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    app = FastAPI()

    @app.get("/health")
    def health() -> str:
        time.sleep(2 * PATIENCE)
        return "well"

    with serving(app, CATLOG_API_TIMEOUT=PATIENCE) as port:
        yield port


def is_closed(client: socket.socket, letters: bytes = b"") -> bool:
    """Return whether the server closes the connection, although the client sends *letters*."""
    client.settimeout(PATIENCE / 5)
    end = time.monotonic() + WAIT_LIMIT_S
    while time.monotonic() < end:
        try:
            if letters:
                client.sendall(letters)
            if not client.recv(65536):
                return True
        except TimeoutError:
            continue
        except ConnectionError:
            return True
    return False


@pytest.mark.parametrize(
    ("said", "letters"),
    [(b"", b""), (b"GET /hea", b""), (HEALTH, b"X: y\r\n"), (b"GET /", b"x")],
)
def test_connection_of_an_incomplete_request_is_closed(
    port: int, said: bytes, letters: bytes
) -> None:
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(said)
        assert is_closed(client, letters)


def test_connection_of_an_unread_body_is_closed(port: int) -> None:
    """A client that sends the rest of its body after the response is disconnected."""
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(HEALTH + b"Content-Length: 1000\r\n\r\n")
        client.settimeout(WAIT_LIMIT_S)
        assert client.recv(65536).startswith(b"HTTP/1.1 200 OK")
        assert is_closed(client, b"x")


def test_client_that_does_not_read_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "STALL_TIMEOUT_S", PATIENCE)
    app = FastAPI()

    @app.get("/much")
    def much() -> Response:
        return Response(b"x" * 50_000_000)

    with (
        serving(app, CATLOG_API_TIMEOUT=PATIENCE) as port,
        socket.create_connection(("127.0.0.1", port)) as client,
    ):
        client.sendall(b"GET /much HTTP/1.1\r\nHost: here\r\n\r\n")
        # The end of the connection shows only behind the data that fill the buffers.
        time.sleep(20 * PATIENCE)
        received = 0
        client.settimeout(WAIT_LIMIT_S)
        with contextlib.suppress(ConnectionError):
            while chunk := client.recv(2**20):
                received += len(chunk)
        assert received < 50_000_000


def test_slow_response_keeps_its_connection(port: int) -> None:
    """The next request gets the full time to arrive."""
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT_LIMIT_S) as client:
        for _ in range(2):
            client.sendall(HEALTH + b"\r\n")
            response = b""
            while not response.endswith(b'"well"'):
                chunk = client.recv(65536)
                assert chunk
                response += chunk
            assert response.startswith(b"HTTP/1.1 200 OK")
        client.sendall(HEALTH)
        assert is_closed(client, b"X: y\r\n")
