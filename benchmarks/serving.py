"""HTTP server to measure: `scrapy serve` on loopback, with products to read."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import orjson
from sqlalchemy import Engine

from benchmarks.common import ROOT, SETTINGS, Server, providers_folder, resources_file
from benchmarks.fleet import TIMEOUT_S, free_port, wait_until
from catlog_scrapy.store.access.keys import add_key

PATH = "/api/v1/products"


@dataclass(frozen=True)
class Serving:
    """Server process that listens on *port*, with an API *key* that may read."""

    process: "subprocess.Popen[bytes]"
    port: int
    key: str

    @property
    def headers(self) -> dict[str, str]:
        """Headers of every request."""
        return {"Authorization": f"Bearer {self.key}"}

    def connect(self) -> HTTPConnection:
        """Open a connection for many requests."""
        return HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)

    def ask(self, connection: HTTPConnection, path: str) -> bytes:
        """Send a request and return the response's body. Raises RuntimeError for an error."""
        connection.request("GET", path, headers=self.headers)
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise RuntimeError(f"{path} answers {response.status}: {body[:500]!r}")
        return body

    def follow(self, connection: HTTPConnection, path: str) -> str:
        """Return the path of the page after the page of *path*."""
        following = orjson.loads(self.ask(connection, path))["next"]
        return str(following).partition(f":{self.port}")[2]

    def memory(self, of: str) -> float:
        """Return memory of the process in MiB: `VmRSS` now, or `VmHWM`, its peak."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"{of}:\s+(\d+) kB", status)
        if found is None:
            raise RuntimeError(f"no {of} of {self.process.pid}")
        return int(found[1]) / 1024

    def reset_peak(self) -> None:
        """Reset the peak (`VmHWM`) to the present memory."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")


@contextmanager
def serve(server: Server, engine: Engine) -> Iterator[Serving]:
    """Start a server of the published products."""
    log = server.folder / f"serve-{server.number()}.log"
    port = free_port()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "scrapy", "serve", "--port", str(port)],
            cwd=server.folder,
            env=os.environ
            | {
                "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
                "SCRAPY_SETTINGS_MODULE": SETTINGS,
                "CATLOG_DATABASE_URL": engine.url.render_as_string(hide_password=False),
                "CATLOG_HOME": str(server.folder / f"home-of-server-{server.number()}"),
                "CATLOG_PROVIDERS": str(providers_folder(server, engine)),
                "CATLOG_RESOURCES": str(resources_file(server, engine)),
            },
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    serving = Serving(process, port, add_key(engine, f"bench-{server.number()}", "admin"))
    try:
        wait_until(lambda: _is_ready(serving), TIMEOUT_S, "server that is ready")
        yield serving
    except BaseException as error:
        error.add_note(f"End of the server's log: {log.read_text()[-2000:]}")
        raise
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _is_ready(serving: Serving) -> bool:
    if serving.process.poll() is not None:
        raise RuntimeError(f"the server ended with {serving.process.returncode}")
    try:
        serving.ask(serving.connect(), f"{PATH}?limit=1")
    except OSError:
        return False
    return True
