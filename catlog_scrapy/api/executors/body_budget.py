"""Bytes of batches that the server holds in memory for each executor."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from catlog_scrapy.api.problems import Problem

# Largest batches of one executor in memory: one is stored while the next one arrives.
BATCHES_IN_MEMORY = 2


class BodyBudget:
    """Memory for bodies: an executor waits until its earlier batches have been stored.

    Used in the event loop only. Without the budget one executor could fill the memory with as many
    of the largest batches as it may send requests.
    """

    def __init__(self, max_batch_bytes: int, timeout_s: float) -> None:
        self.max_bytes = BATCHES_IN_MEMORY * max_batch_bytes
        self.timeout_s = timeout_s
        self._held: Counter[str] = Counter()
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def hold(self, executor: str, size: int) -> AsyncIterator[None]:
        """Hold *size* bytes for an executor during the block. Raises Problem 503."""
        try:
            async with asyncio.timeout(self.timeout_s):
                while self._held[executor] + size > self.max_bytes:
                    await self._freed.wait()
        except TimeoutError:
            raise Problem(
                503,
                f"this executor has {self.max_bytes} bytes of batches under way; send a batch after"
                " the reply to the one before",
                headers={"Retry-After": "5", "Connection": "close"},
            ) from None
        self._held[executor] += size
        try:
            yield
        finally:
            self._held[executor] -= size
            self._held += Counter()  # forgets executors without batches
            self._freed.set()
            self._freed = asyncio.Event()
