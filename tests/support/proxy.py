"""Network between a process and PostgreSQL that fails on demand."""

import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Self
from urllib.parse import parse_qs

from sqlalchemy import make_url

CHUNK = 65_536


class Proxy:
    """Proxy from a port of 127.0.0.1 to *target*, a Unix socket.

    *target* is the socket's file, or the URL of a server that listens on one: then `url` is that
    URL through the proxy.
    """

    def __init__(self, target: str | Path) -> None:
        self.target, self.original = self._located(str(target))
        self.flows = threading.Event()
        self.flows.set()
        self.refuses = False
        self.accepted = 0
        self.sockets: set[socket.socket] = set()
        self.lock = threading.Lock()
        self.listener = self._listen(0)
        self.port: int = self.listener.getsockname()[1]

    @staticmethod
    def _located(target: str) -> tuple[str, str]:
        if "://" not in target:
            return target, "postgresql://catlog@localhost/catlog"
        url = make_url(target)
        query = parse_qs(target.partition("?")[2])
        folder, port = query["host"][0], query.get("port", [str(url.port or 5432)])[0]
        return f"{folder}/.s.PGSQL.{port}", target

    @property
    def url(self) -> str:
        """Return a database URL through the proxy."""
        url = make_url(self.original).set(host="127.0.0.1", port=self.port, query={})
        return url.render_as_string(hide_password=False)

    def freeze(self) -> None:
        """Hold all data back from now on, without closing connections.

        New connections are accepted, and stay silent too.
        """
        self.flows.clear()

    def thaw(self) -> None:
        """Pass held-back data and new connections on, after `cut` too."""
        if self.refuses:
            self.refuses = False
            self.listener = self._listen(self.port)
            self._accept_in_a_thread()
        self.flows.set()

    def cut(self) -> None:
        """Close all connections, and refuse new ones until `thaw`."""
        self.refuses = True
        self._close(self.listener)
        with self.lock:
            sockets = list(self.sockets)
        for each in sockets:
            self._close(each)

    def __enter__(self) -> Self:
        self._accept_in_a_thread()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
        self.flows.set()

    def _listen(self, port: int) -> socket.socket:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(128)
        return listener

    def _accept_in_a_thread(self) -> None:
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self.accepted += 1
            threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with self.lock:
            self.sockets |= {client, server}
        self.flows.wait()
        try:
            server.connect(self.target)
        except OSError:
            self._close(client, server)
            return
        if self.refuses:  # cut while it was connecting
            self._close(client, server)
            return
        for source, sink in ((client, server), (server, client)):
            threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while chunk := source.recv(CHUNK):
                self.flows.wait()
                sink.sendall(chunk)
        self.flows.wait()
        self._close(source, sink)

    def _close(self, *sockets: socket.socket) -> None:
        for each in sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
            with self.lock:
                self.sockets.discard(each)
