"""Logs that `scrapy logs` reads from a node."""

import argparse
import io
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest

from catlog_scrapy.commands.logs import Command


class LogHandler(BaseHTTPRequestHandler):
    """Handler that answers with a log."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"the first line\n" * 1000)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class ClosedOutput(io.StringIO):
    """Output whose reader has gone after the heading."""

    def write(self, text: str) -> int:
        if text.startswith("the first line"):
            raise BrokenPipeError
        return super().write(text)


@pytest.fixture
def node_url() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), LogHandler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_closed_output_is_no_fault_of_the_node(
    node_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = {
        "operation": "things",
        "part": "",
        "attempt": 1,
        "outcome": "done",
        "node": "one",
        "node_url": node_url,
        "log": "/nowhere/1.log",
    }
    monkeypatch.setattr(sys, "stdout", ClosedOutput())
    with pytest.raises(BrokenPipeError):
        Command()._print(attempt, argparse.Namespace(lines=None))
