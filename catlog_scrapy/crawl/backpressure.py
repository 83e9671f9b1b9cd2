"""Backpressure: items wait while the rows of earlier items are sent to the database."""

import asyncio


class Gate:
    """Backpressure gate in front of the pipelines, first come, first served.

    While the writer's buffers are full the gate is closed, and items wait in `wait`. `is_open` is
    true if an item may pass at once: the gate is open, and no earlier item waits.
    """

    def __init__(self) -> None:
        self.is_open = True
        self._room = asyncio.Event()
        self._room.set()
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def wait(self) -> None:
        """Wait until the gate is open; no other item passes before the caller awaits again."""
        self._waiting += 1
        try:
            async with self._turn:
                await self._room.wait()
        finally:
            self._waiting -= 1
            self.is_open = self._room.is_set() and not self._waiting

    def open(self) -> None:
        """Let waiting items pass."""
        self._room.set()
        self.is_open = not self._waiting

    def close(self) -> None:
        """Make the next items wait."""
        self._room.clear()
        self.is_open = False
