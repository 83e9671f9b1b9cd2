"""Concurrent requests per client."""

import asyncio
from weakref import WeakValueDictionary

from scrapy.settings import BaseSettings
from starlette.types import ASGIApp, Receive, Scope, Send

from catlog_scrapy.api.paths import PREFIX
from catlog_scrapy.api.problems import Problem

MAX_CLIENT_REQUESTS = 16
# Paths without the limit: they hold no thread, or only while they look at the queue.
UNLIMITED_PATHS = ("/healthz", f"{PREFIX}/attempts/claim")
TOO_MANY_REQUESTS = Problem(
    503,
    f"Too many concurrent requests: at most {MAX_CLIENT_REQUESTS} per client.",
    headers={"Retry-After": "1"},
)


class ClientConcurrencyLimit:
    """Middleware that lets further requests of a client wait for its earlier requests.

    Without the limit one client with slow requests would occupy all threads. See
    docs/decisions/http-server.md for the measurement.
    """

    def __init__(self, app: ASGIApp, settings: BaseSettings) -> None:
        self.app = app
        self.timeout_s = settings.getfloat("CATLOG_API_TIMEOUT")
        # By client; a semaphore lives as long as a request holds it or waits for it.
        self.semaphores: WeakValueDictionary[bytes | str, asyncio.Semaphore] = WeakValueDictionary()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in UNLIMITED_PATHS:
            return await self.app(scope, receive, send)
        headers = dict(scope["headers"])
        address = scope["client"][0] if scope["client"] else ""
        client = headers.get(b"authorization") or headers.get(b"x-api-key") or address
        semaphore = self.semaphores.setdefault(client, asyncio.Semaphore(MAX_CLIENT_REQUESTS))
        try:
            async with asyncio.timeout(self.timeout_s):
                await semaphore.acquire()
        except TimeoutError:
            return await TOO_MANY_REQUESTS.response()(scope, receive, send)
        try:
            await self.app(scope, receive, send)
        finally:
            semaphore.release()
