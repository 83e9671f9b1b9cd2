"""HTTP source for tests, with an answer per path."""

import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


@dataclass
class Answer:
    """Answer of a path: *status*, *body* and *headers* after *delay* seconds."""

    body: bytes = b""
    status: int = 200
    delay: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)


class Source:
    """Server with `source.answers["/path"] = Answer(...)`; other paths are a 404.

    A key may begin with a host name. `requests` lists paths. The *address* "" is that of all names
    of this machine, such as 127.0.0.2.
    """

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.answers: dict[str, Answer] = {}
        self.requests: list[str] = []
        source = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                source.requests.append(self.path)
                host = self.headers.get("Host", "").partition(":")[0]
                answer = source.answers.get(host + self.path) or source.answers.get(
                    self.path, Answer(status=404)
                )
                time.sleep(answer.delay)
                self.send_response(answer.status)
                self.send_header("Content-Length", str(len(answer.body)))
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer((address, 0), Handler)
        self.http.daemon_threads = True
        self.http.handle_error = lambda request, address: None  # clients that time out go away

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.http.server_close()
