"""What a request may be before anybody looks at it: its path, its size, its time."""

import asyncio
import logging
import math
import re
from urllib.parse import unquote
from weakref import WeakValueDictionary

from scrapy.settings import BaseSettings
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from catlog_scrapy.api.problems import Problem
from catlog_scrapy.api.resources.streams import StreamBroken

logger = logging.getLogger(__name__)

PREFIX = "/api/v1"
# Their owner has them without the prefix.
UNPREFIXED_PATHS = re.compile(
    r"/(providers|catalogs|catalog_schemes|catalog_scheme_operations|catalog_results"
    r"|catalog_scheme_operation_instances|schedule_catalog_scheme_operation)(/|$)"
)
# Results of external executors, which come in batches. Their endpoint reads them itself.
RESULTS_PATH = re.compile(rf"{PREFIX}/attempts/[^/]+/results")
CLAIM_PATH = f"{PREFIX}/attempts/claim"
# Requests of one client that are answered at the same time.
MAX_CLIENT_REQUESTS = 16
ESCAPED_SLASH = re.compile(rb"%2f|%25", re.IGNORECASE)
SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
CONTENT_SECURITY_POLICY = (
    b"content-security-policy",
    b"default-src 'none'; frame-ancestors 'none'",
)


class PathNormalizer:
    """A slash at the end is optional, and so is the prefix where the owner's clients have none.

    HEAD is a GET whose body nobody sends. A `%2F` stays one until its path is taken apart: the key
    of a record may hold a slash.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            raw: bytes = scope.get("raw_path") or scope["path"].encode()
            path = unquote(
                ESCAPED_SLASH.sub(lambda found: found[0].replace(b"%", b"%25"), raw),
                errors="surrogateescape",
            )
            if any("\ud800" <= letter <= "\udfff" or letter == "\0" for letter in path):
                response = Problem(400, "the path is no UTF-8 text, or holds U+0000.").response()
                return await response(scope, receive, send)
            path = path.rstrip("/") or "/"
            scope = {
                **scope,
                "catlog.path": raw,
                "path": PREFIX + path if UNPREFIXED_PATHS.match(path) else path,
            }
            # The server itself leaves the body of an answer to HEAD out.
            if scope["method"] == "HEAD":
                scope["method"] = "GET"
        return await self.app(scope, receive, send)


class ClientConcurrencyLimit:
    """Limit of concurrent requests per client; further requests wait.

    Without the limit one client with slow requests would occupy all threads.
    """

    def __init__(self, app: ASGIApp, settings: BaseSettings) -> None:
        self.app = app
        self.timeout_s = settings.getfloat("CATLOG_API_TIMEOUT")
        # By client; a semaphore lives as long as a request holds it or waits for it.
        self.semaphores: WeakValueDictionary[bytes | str, asyncio.Semaphore] = WeakValueDictionary()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # To wait for something to claim takes no thread.
        if scope["type"] != "http" or scope["path"] in ("/healthz", CLAIM_PATH):
            return await self.app(scope, receive, send)
        headers = dict(scope["headers"])
        address = scope["client"][0] if scope["client"] else ""
        who = headers.get(b"authorization") or headers.get(b"x-api-key") or address
        semaphore = self.semaphores.setdefault(who, asyncio.Semaphore(MAX_CLIENT_REQUESTS))
        try:
            async with asyncio.timeout(self.timeout_s):
                await semaphore.acquire()
        except TimeoutError:
            return await TOO_MANY_REQUESTS.response()(scope, receive, send)
        try:
            await self.app(scope, receive, send)
        finally:
            semaphore.release()


class RequestLimits:
    """Refuses what is too large or comes too slowly; puts security headers on every answer."""

    def __init__(self, app: ASGIApp, settings: BaseSettings) -> None:
        self.app = app
        self.max_bytes = settings.getint("CATLOG_API_BODY")
        self.max_batch_bytes = settings.getint("CATLOG_API_BATCH")
        self.timeout_s = settings.getfloat("CATLOG_API_TIMEOUT")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        is_batch = bool(RESULTS_PATH.fullmatch(scope["path"]))
        max_bytes = self.max_batch_bytes if is_batch else self.max_bytes
        # A batch may take as long as its endpoint says, if it goes on coming.
        body = CountedBody(receive, max_bytes, self.timeout_s, is_batch=is_batch)
        started = refusing = False

        async def answer(message: Message) -> None:
            nonlocal started
            if body.problem and not started and not refusing:
                return  # the application takes it for a body that cannot be read
            if message["type"] == "http.response.start":
                started = True
                headers = message.setdefault("headers", [])
                named = {name.lower() for name, _ in headers}
                headers += [
                    pair
                    for pair in (*SECURITY_HEADERS, CONTENT_SECURITY_POLICY)
                    if pair[0] not in named
                ]
            await send(message)

        length = dict(scope["headers"]).get(b"content-length", b"0")
        try:
            if not length.isdigit() or int(length) > max_bytes:
                raise too_large(max_bytes)
            await self.app(scope, body, answer)
            if body.problem and not started:
                raise body.problem
        except Problem as problem:
            if started:
                raise
            refusing = True
            await problem.response()(scope, receive, answer)
        except StreamBroken as broken:
            # The server cuts the connection of an answer that nobody ended.
            logger.warning("%s", broken)
        except asyncio.CancelledError:
            # The server stops, and has waited for this one as long as it may.
            if started:
                logger.warning("an answer was cut: the server stops")
            else:
                refusing = True
                await SHUTTING_DOWN.response()(scope, receive, answer)


TOO_MANY_REQUESTS = Problem(
    503, f"{MAX_CLIENT_REQUESTS} requests of yours are under way.", headers={"Retry-After": "1"}
)
SHUTTING_DOWN = Problem(503, "the server stops; ask again.", headers={"Retry-After": "5"})


def too_large(max_bytes: int) -> Problem:
    """What a body of more than *max_bytes* bytes is answered; nobody reads the rest of it."""
    return Problem(
        413,
        f"the body is larger than {max_bytes} bytes; send less.",
        headers={"Connection": "close"},
    )


class CountedBody:
    """The messages of a request's body, counted and timed."""

    def __init__(
        self, receive: Receive, max_bytes: int, timeout_s: float, *, is_batch: bool = False
    ) -> None:
        self.receive = receive
        self.max_bytes = max_bytes
        self.timeout_s = timeout_s
        self.deadline = math.inf if is_batch else asyncio.get_running_loop().time() + timeout_s
        self.received = 0
        self.is_complete = False
        self.problem: Problem | None = None

    async def __call__(self) -> Message:
        """The next message. Raises Problem, and keeps it, where it is too much or too late."""
        if self.is_complete:  # then it is the client's going that is waited for
            return await self.receive()
        try:
            now = asyncio.get_running_loop().time()
            async with asyncio.timeout_at(min(now + self.timeout_s, self.deadline)):
                message = await self.receive()
        except TimeoutError:
            self.problem = Problem(
                408, "the body took too long to arrive.", headers={"Connection": "close"}
            )
            raise self.problem from None
        if message["type"] == "http.request":
            self.received += len(message.get("body", b""))
            self.is_complete = not message.get("more_body", False)
            if self.received > self.max_bytes:
                self.problem = too_large(self.max_bytes)
                raise self.problem
        return message
