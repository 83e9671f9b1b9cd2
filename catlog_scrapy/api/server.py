"""uvicorn as this server wants it: it waits for no client that does not say what it wants."""

import asyncio
from types import FrameType

import uvicorn
from fastapi import FastAPI
from scrapy.settings import BaseSettings
from uvicorn.protocols.http.h11_impl import H11Protocol

# Connections of clients; one more is answered 503.
MOST_CLIENTS = 1000
# Seconds in which a client has to take something of what it is sent.
STALLED = 60.0


class PatientProtocol(H11Protocol):
    """Closes a connection on which no request has arrived whole within `patience` seconds.

    Or whose client has not taken what it was sent for STALLED. uvicorn itself closes only what says
    nothing at all after an answer: who says nothing from the beginning, a letter a second, or never
    reads, could hold all connections there are.
    """

    patience = 10.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._waiting = self.loop.call_later(self.patience, self._give_up)
        self._stalled: asyncio.TimerHandle | None = None

    def on_response_complete(self) -> None:
        self._waiting.cancel()
        self._waiting = self.loop.call_later(self.patience, self._give_up)
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._waiting.cancel()
        if self._stalled:
            self._stalled.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        self._stalled = self.loop.call_later(STALLED, self.transport.abort)
        super().pause_writing()

    def resume_writing(self) -> None:
        if self._stalled:
            self._stalled.cancel()
        super().resume_writing()

    def _give_up(self) -> None:
        """What was answered is read, or not: a body that still comes is of no use to anybody."""
        if self.cycle is not None and not self.cycle.response_complete:
            return
        if self.transport.is_closing():
            self.transport.abort()
        else:
            self.transport.close()
            self._waiting = self.loop.call_later(self.patience, self.transport.abort)


def patient(seconds: float) -> type[H11Protocol]:
    """The protocol with that patience."""
    return type("Protocol", (PatientProtocol,), {"patience": seconds})


class TellingServer(uvicorn.Server):
    """Lets the application know that it has been asked to stop: what waits need not."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        app = self.config.app
        if isinstance(app, FastAPI):
            app.state.stopping = True
        super().handle_exit(sig, frame)


def stopping(app: FastAPI) -> bool:
    """Whether the server of *app* has been asked to stop."""
    return bool(getattr(app.state, "stopping", False))


def make_server(app: FastAPI, settings: BaseSettings) -> uvicorn.Server:
    """A server of *app*; it is told where to listen when it is run."""
    proxies = settings.getlist("CATLOG_API_PROXIES")
    return TellingServer(
        uvicorn.Config(
            app,
            http=patient(settings.getfloat("CATLOG_API_TIMEOUT")),
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=bool(proxies),
            forwarded_allow_ips=proxies,
            limit_concurrency=MOST_CLIENTS,
            timeout_graceful_shutdown=int(settings.getfloat("CATLOG_GRACE")),
        )
    )
