"""HTTP source that answers with given bytes, so that its responses may break off."""

import socket
import socketserver
import struct
import threading
from dataclasses import dataclass
from typing import Self


@dataclass
class RawAnswer:
    """Bytes of a whole response, after which the connection closes; with *reset*, by a reset."""

    data: bytes
    reset: bool = False


def response(
    body: bytes,
    *headers: str,
    status: str = "200 OK",
    version: str = "1.1",
    length: int | None = -1,
    reset: bool = False,
) -> RawAnswer:
    """Return an answer with *body*; a *length* of -1 is the body's, None omits Content-Length."""
    lines = [f"HTTP/{version} {status}", "Content-Type: application/json", *headers]
    if length is not None:
        lines.append(f"Content-Length: {len(body) if length < 0 else length}")
    return RawAnswer("\r\n".join([*lines, "Connection: close", "", ""]).encode() + body, reset)


class RawSource:
    """Server with `answers["/path"]`: one RawAnswer, or a list of one for each request.

    The last of a list repeats. Other paths are a 404. `requests` lists the paths.
    """

    def __init__(self) -> None:
        self.answers: dict[str, RawAnswer | list[RawAnswer]] = {}
        self.requests: list[str] = []
        source = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                received = b""
                while b"\r\n\r\n" not in received:
                    chunk = self.request.recv(65536)
                    if not chunk:
                        return
                    received += chunk
                path = received.split(b" ", 2)[1].decode()
                source.requests.append(path)
                answer = source.answer(path)
                self.request.sendall(answer.data)
                if answer.reset:
                    linger = struct.pack("ii", 1, 0)
                    self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

            def finish(self) -> None:
                self.request.close()

        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def answer(self, path: str) -> RawAnswer:
        """Return the next answer of *path*."""
        found = self.answers.get(path, response(b"[]", status="404 Not Found"))
        if isinstance(found, RawAnswer):
            return found
        return found.pop(0) if len(found) > 1 else found[0]

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
