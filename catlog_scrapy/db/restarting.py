"""Thread that brings the embedded server back while commands use it."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from catlog_scrapy.console import warn
from catlog_scrapy.db.embedded import EmbeddedServer
from catlog_scrapy.exceptions import EmbeddedServerError

CHECK_INTERVAL_S = 0.5
# Pause after a restart that failed, for example because the disk is full.
RETRY_INTERVAL_S = 5.0


class ServerRestarter(threading.Thread):
    """Thread that restarts *server*, which this process uses, when it has ended.

    The OOM killer, a crash or a person may end the server. Several processes may use the server:
    the first to notice restarts it, under the lock that every start takes.
    """

    def __init__(self, server: EmbeddedServer) -> None:
        super().__init__(name="catlog-embedded-server", daemon=True)
        self.server = server
        self._ended = threading.Event()
        self._warned = ""

    def run(self) -> None:
        """Check the server until `end`."""
        pause_s = CHECK_INTERVAL_S
        while not self._ended.wait(pause_s):
            pause_s = CHECK_INTERVAL_S if self._keep_alive() else RETRY_INTERVAL_S

    def end(self) -> None:
        """Stop checking; wait for a restart that is under way."""
        self._ended.set()
        self.join()

    def _keep_alive(self) -> bool:
        """Restart the server if it has ended; return whether it answers then."""
        if not self.server.has_ended():
            return True
        began_at = time.monotonic()
        try:
            self.server.acquire()
        except EmbeddedServerError as error:
            self._warn_once(f"{error} The next try is in {RETRY_INTERVAL_S:g} s.")
            return False
        self._warned = ""
        seconds = time.monotonic() - began_at
        warn(f"the embedded PostgreSQL had ended; it answers again after {seconds:.1f} s")
        return True

    def _warn_once(self, line: str) -> None:
        if line != self._warned:
            self._warned = line
            warn(line)


@contextmanager
def running_server(server: EmbeddedServer) -> Iterator[str]:
    """Use *server* and return its URL; restart the server whenever it ends within the block."""
    with server as url:
        restarter = ServerRestarter(server)
        restarter.start()
        try:
            yield url
        finally:
            restarter.end()
