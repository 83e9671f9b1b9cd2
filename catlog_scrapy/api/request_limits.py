"""Size and time limits of request bodies; security headers of responses."""

import asyncio
import logging
import math
import re

from scrapy.settings import BaseSettings
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from catlog_scrapy.api.paths import PREFIX
from catlog_scrapy.api.problems import Problem
from catlog_scrapy.api.resources.streams import StreamBroken

logger = logging.getLogger(__name__)

# Batches of results have a larger limit, and their route reads and times the body itself.
RESULTS_PATH = re.compile(rf"{PREFIX}/attempts/[^/]+/results")
SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
]
SHUTTING_DOWN = Problem(
    503, "The server is shutting down; send the request again.", headers={"Retry-After": "5"}
)


def body_too_large(max_bytes: int) -> Problem:
    """Return the problem of a body of more than *max_bytes*; the rest of the body is not read."""
    return Problem(
        413,
        f"The body is larger than {max_bytes} bytes; send a smaller body.",
        headers={"Connection": "close"},
    )


class RequestLimits:
    """Middleware that refuses bodies that are too large or too slow, and adds security headers."""

    def __init__(self, app: ASGIApp, settings: BaseSettings) -> None:
        self.app = app
        self.max_body_bytes = settings.getint("CATLOG_API_BODY")
        self.max_batch_bytes = settings.getint("CATLOG_API_BATCH")
        self.timeout_s = settings.getfloat("CATLOG_API_TIMEOUT")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        is_batch = bool(RESULTS_PATH.fullmatch(scope["path"]))
        max_bytes = self.max_batch_bytes if is_batch else self.max_body_bytes
        body = LimitedBody(receive, max_bytes, self.timeout_s, has_own_deadline=is_batch)
        started = refusing = False

        async def respond(message: Message) -> None:
            nonlocal started
            if body.problem and not started and not refusing:
                return  # the application's response to a body that it could not read
            if message["type"] == "http.response.start":
                started = True
                headers = message.setdefault("headers", [])
                present = {name.lower() for name, _ in headers}
                headers += [header for header in SECURITY_HEADERS if header[0] not in present]
            await send(message)

        length = dict(scope["headers"]).get(b"content-length", b"0")
        try:
            if not length.isdigit() or int(length) > max_bytes:
                raise body_too_large(max_bytes)
            await self.app(scope, body, respond)
            if body.problem and not started:
                raise body.problem
        except Problem as problem:
            if started:
                raise
            refusing = True
            await problem.response()(scope, receive, respond)
        except StreamBroken as broken:
            # uvicorn closes the connection of a response that has no end.
            logger.warning("%s", broken)
        except asyncio.CancelledError:
            # uvicorn cancels requests that take longer than its graceful shutdown.
            if started:
                logger.warning("a response was cut off by the server's shutdown")
            else:
                refusing = True
                await SHUTTING_DOWN.response()(scope, receive, respond)


class LimitedBody:
    """Messages of a request's body, counted and timed.

    Each message has to arrive within *timeout_s*, and all of them too, unless the route has a
    deadline of its own.
    """

    def __init__(
        self, receive: Receive, max_bytes: int, timeout_s: float, *, has_own_deadline: bool
    ) -> None:
        self.receive = receive
        self.max_bytes = max_bytes
        self.timeout_s = timeout_s
        now = asyncio.get_running_loop().time()
        self.deadline = math.inf if has_own_deadline else now + timeout_s
        self.received_bytes = 0
        self.is_complete = False
        self.problem: Problem | None = None

    async def __call__(self) -> Message:
        """Return the next message. Raises Problem for a body that is too large or too slow."""
        if self.is_complete:  # the caller waits for the client to disconnect
            return await self.receive()
        try:
            now = asyncio.get_running_loop().time()
            async with asyncio.timeout_at(min(now + self.timeout_s, self.deadline)):
                message = await self.receive()
        except TimeoutError:
            self.problem = Problem(
                408,
                f"The body did not arrive within {self.timeout_s:g} s.",
                headers={"Connection": "close"},
            )
            raise self.problem from None
        if message["type"] == "http.request":
            self.received_bytes += len(message.get("body", b""))
            self.is_complete = not message.get("more_body", False)
            if self.received_bytes > self.max_bytes:
                self.problem = body_too_large(self.max_bytes)
                raise self.problem
        return message
