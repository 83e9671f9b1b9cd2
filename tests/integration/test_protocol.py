"""No client keeps a connection by saying nothing, or too slowly what it wants."""

import socket
import time
from collections.abc import Iterator

import pytest
from fastapi import FastAPI

from tests.executing import serving

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
    """Whether the server closes within ten times its patience, though a client goes on slowly."""
    client.settimeout(PATIENCE / 5)
    end = time.monotonic() + 10 * PATIENCE
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
def test_a_request_that_does_not_arrive_is_not_waited_for(
    port: int, said: bytes, letters: bytes
) -> None:
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(said)
        assert is_closed(client, letters)


def test_an_answer_is_given_however_long_it_takes(port: int) -> None:
    """And the next request has as long to arrive again."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        for _ in range(2):
            client.sendall(HEALTH + b"\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 200 OK")
        client.sendall(HEALTH)
        assert is_closed(client, b"X: y\r\n")
