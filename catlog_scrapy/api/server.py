"""HTTP server: uvicorn with timeouts for slow clients. See docs/decisions/http-server.md."""

import asyncio
import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI
from scrapy.settings import BaseSettings
from uvicorn.protocols.http.h11_impl import H11Protocol

from catlog_scrapy.readiness import notify_ready

# Further connections get a response with status 503.
MAX_CONNECTIONS = 1000
# Longest time in which a client takes nothing of its response.
STALL_TIMEOUT_S = 60.0


class TimeoutProtocol(H11Protocol):
    """HTTP protocol that closes connections whose client is too slow.

    A request has to arrive within `request_timeout_s`, and the client has to take some of its
    response within STALL_TIMEOUT_S. uvicorn itself only closes connections that are idle after a
    response, so slow clients could hold all connections.
    """

    request_timeout_s = 10.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer of the first request."""
        super().connection_made(transport)
        # asyncio only sets TCP_NODELAY for sockets made with IPPROTO_TCP. Without it the body of a
        # response waits for the acknowledgement of its head: 40 ms.
        connection: socket.socket = transport.get_extra_info("socket")
        if connection.family in (socket.AF_INET, socket.AF_INET6):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._request_timer = self.loop.call_later(self.request_timeout_s, self._close)
        self._stall_timer: asyncio.TimerHandle | None = None

    def on_response_complete(self) -> None:
        """Start the timer of the next request."""
        self._request_timer.cancel()
        self._request_timer = self.loop.call_later(self.request_timeout_s, self._close)
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers."""
        self._request_timer.cancel()
        if self._stall_timer:
            self._stall_timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Start the timer of a client that does not take its response."""
        self._stall_timer = self.loop.call_later(STALL_TIMEOUT_S, self.transport.abort)
        super().pause_writing()

    def resume_writing(self) -> None:
        """Stop that timer."""
        if self._stall_timer:
            self._stall_timer.cancel()
        super().resume_writing()

    def _close(self) -> None:
        """Close the connection, unless the server still works on a response.

        The rest of a body that arrives after its response is of no use.
        """
        if self.cycle is not None and not self.cycle.response_complete:
            return
        if self.transport.is_closing():
            self.transport.abort()
        else:
            self.transport.close()
            self._request_timer = self.loop.call_later(self.request_timeout_s, self.transport.abort)


def protocol_with_timeout(seconds: float) -> type[H11Protocol]:
    """Return the protocol with this request timeout."""
    return type("Protocol", (TimeoutProtocol,), {"request_timeout_s": seconds})


class NotifyingServer(uvicorn.Server):
    """Server that tells the application when it shuts down, so that requests stop waiting."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and notify the process that waits for the server."""
        await super().startup(sockets)
        if self.started and sockets:
            notify_ready(url_of(sockets[0]))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Shut down, and let requests know."""
        app = self.config.app
        if isinstance(app, FastAPI):
            app.state.is_shutting_down = True
        super().handle_exit(sig, frame)


def url_of(listener: socket.socket) -> str:
    """Return the URL of a server that listens on *listener*."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_shutting_down(app: FastAPI) -> bool:
    """Return whether the server of *app* is shutting down."""
    return bool(getattr(app.state, "is_shutting_down", False))


def make_server(app: FastAPI, settings: BaseSettings) -> uvicorn.Server:
    """Make a server of *app*; `run` gets the sockets to listen on."""
    return NotifyingServer(
        uvicorn.Config(
            app,
            loop="asyncio",
            http=protocol_with_timeout(settings.getfloat("CATLOG_API_TIMEOUT")),
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # the application reads them, as it needs the proxy's address too
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=int(settings.getfloat("CATLOG_GRACE")),
        )
    )
