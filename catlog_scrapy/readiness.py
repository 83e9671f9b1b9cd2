"""Readiness of services, told by systemd's protocol: sd_notify(3).

A service sends READY=1 to the socket that NOTIFY_SOCKET names, so systemd can wait for it too.
"""

import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

NOTIFY_SOCKET = "NOTIFY_SOCKET"
POLL_INTERVAL_S = 0.1
# A socket's path has room for 103 bytes; the rest of them is for "/catlog-xxxxxxxx/notify".
MAX_TMPDIR_BYTES = 80


def notify_ready(status: str) -> None:
    """Tell whoever waits for this process that it is ready; *status* is a line for people.

    The variable is unset: processes that this process starts have nothing to tell there. Nobody
    may listen, as sd_notify(3) allows: the process works without a supervisor.
    """
    address = os.environ.pop(NOTIFY_SOCKET, None)
    if address is None:
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect("\0" + address[1:] if address.startswith("@") else address)
        sender.send(f"READY=1\nSTATUS={status}".encode())


class Readiness:
    """Socket on which a service tells that it is ready."""

    def __init__(self) -> None:
        fits = len(os.fsencode(tempfile.gettempdir())) <= MAX_TMPDIR_BYTES
        self._folder = Path(tempfile.mkdtemp(prefix="catlog-", dir=None if fits else "/tmp"))
        self.address = str(self._folder / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)
        self._socket.settimeout(POLL_INTERVAL_S)

    def close(self) -> None:
        """Remove the socket."""
        self._socket.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def wait(self, has_ended: Callable[[], bool]) -> str | None:
        """Wait until the service is ready and return its status; None if it *has_ended* before."""
        while True:
            try:
                message = self._socket.recv(4096).decode()
            except TimeoutError:
                if has_ended():
                    return None
                continue
            fields = dict(line.partition("=")[::2] for line in message.splitlines())
            if fields.get("READY") == "1":
                return fields.get("STATUS", "")
