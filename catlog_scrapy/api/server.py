"""uvicorn as this server wants it: it waits for no client that does not say what it wants."""

import asyncio
import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI
from scrapy.settings import BaseSettings
from uvicorn.protocols.http.h11_impl import H11Protocol

from catlog_scrapy.readiness import notify_ready

# Connections of clients; one more is answered 503.
MAX_CONNECTIONS = 1000
# Seconds in which a client has to take something of what it is sent.
STALL_TIMEOUT_S = 60.0


class TimeoutProtocol(H11Protocol):
    """HTTP protocol that closes connections whose client is too slow.

    A request has to arrive within `request_timeout_s`, and the client has to take some of its
    response within STALL_TIMEOUT_S. uvicorn itself only closes connections that are idle after a
    response, so slow clients could hold all connections.
    """

    request_timeout_s = 10.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._request_timer = self.loop.call_later(self.request_timeout_s, self._give_up)
        self._stall_timer: asyncio.TimerHandle | None = None

    def on_response_complete(self) -> None:
        self._request_timer.cancel()
        self._request_timer = self.loop.call_later(self.request_timeout_s, self._give_up)
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._request_timer.cancel()
        if self._stall_timer:
            self._stall_timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        self._stall_timer = self.loop.call_later(STALL_TIMEOUT_S, self.transport.abort)
        super().pause_writing()

    def resume_writing(self) -> None:
        if self._stall_timer:
            self._stall_timer.cancel()
        super().resume_writing()

    def _give_up(self) -> None:
        """What was answered is read, or not: a body that still comes is of no use to anybody."""
        if self.cycle is not None and not self.cycle.response_complete:
            return
        if self.transport.is_closing():
            self.transport.abort()
        else:
            self.transport.close()
            self._request_timer = self.loop.call_later(self.request_timeout_s, self.transport.abort)


def protocol_with_timeout(seconds: float) -> type[H11Protocol]:
    """The protocol with that patience."""
    return type("Protocol", (TimeoutProtocol,), {"request_timeout_s": seconds})


class NotifyingServer(uvicorn.Server):
    """Lets the application know that it has been asked to stop: what waits need not."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and tell whoever waits for it."""
        await super().startup(sockets)
        if self.started and sockets:
            notify_ready(url_of(sockets[0]))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        app = self.config.app
        if isinstance(app, FastAPI):
            app.state.is_shutting_down = True
        super().handle_exit(sig, frame)


def url_of(listener: socket.socket) -> str:
    """Return the URL of a server that listens on *listener*."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_shutting_down(app: FastAPI) -> bool:
    """Whether the server of *app* has been asked to stop."""
    return bool(getattr(app.state, "is_shutting_down", False))


def make_server(app: FastAPI, settings: BaseSettings) -> uvicorn.Server:
    """A server of *app*; it is told where to listen when it is run."""
    proxies = settings.getlist("CATLOG_API_PROXIES")
    return NotifyingServer(
        uvicorn.Config(
            app,
            http=protocol_with_timeout(settings.getfloat("CATLOG_API_TIMEOUT")),
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=bool(proxies),
            forwarded_allow_ips=proxies,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=int(settings.getfloat("CATLOG_GRACE")),
        )
    )
