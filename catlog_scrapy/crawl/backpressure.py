"""Backpressure for items while their rows wait for the database."""

import asyncio


class Gate:
    """Lets items into the pipelines while there is room; who has to wait goes in turn.

    `is_open` says that there is room, and nobody who came earlier.
    """

    def __init__(self) -> None:
        self.is_open = True
        self._room = asyncio.Event()
        self._room.set()
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def wait(self) -> None:
        """Return when there is room. Until the caller awaits again, nobody else passes."""
        self._waiting += 1
        try:
            async with self._turn:
                await self._room.wait()
        finally:
            self._waiting -= 1
            self.is_open = self._room.is_set() and not self._waiting

    def open(self) -> None:
        """There is room again."""
        self._room.set()
        self.is_open = not self._waiting

    def close(self) -> None:
        """There is none."""
        self._room.clear()
        self.is_open = False
