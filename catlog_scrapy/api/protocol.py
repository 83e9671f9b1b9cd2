"""HTTP by uvicorn, which waits for no client that does not say what it wants."""

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


class PatientProtocol(H11Protocol):
    """Closes a connection on which no request has arrived whole within `patience` seconds.

    uvicorn itself closes only what says nothing at all after an answer: who says nothing from the
    beginning, or a letter a second, could hold all connections there are.
    """

    patience = 10.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._waiting = self.loop.call_later(self.patience, self._give_up)

    def on_response_complete(self) -> None:
        self._waiting.cancel()
        self._waiting = self.loop.call_later(self.patience, self._give_up)
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._waiting.cancel()
        super().connection_lost(exc)

    def _give_up(self) -> None:
        is_answering = self.cycle is not None and not self.cycle.response_complete
        if not is_answering and self.conn.their_state is h11.IDLE:
            self.transport.close()


def patient(seconds: float) -> type[H11Protocol]:
    """The protocol with that patience."""
    return type("Protocol", (PatientProtocol,), {"patience": seconds})
