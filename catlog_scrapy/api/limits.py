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
UNPREFIXED = re.compile(
    r"/(providers|catalogs|catalog_schemes|catalog_scheme_operations|catalog_results"
    r"|catalog_scheme_operation_instances|schedule_catalog_scheme_operation)(/|$)"
)
# Results of external executors, which come in batches. Their endpoint reads them itself.
BATCHES = re.compile(rf"{PREFIX}/attempts/[^/]+/results")
CLAIM = f"{PREFIX}/attempts/claim"
# Requests of one client that are answered at the same time.
AT_ONCE = 16
ESCAPED = re.compile(rb"%2f|%25", re.IGNORECASE)
HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")


class Paths:
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
                ESCAPED.sub(lambda found: found[0].replace(b"%", b"%25"), raw),
                errors="surrogateescape",
            )
            if any("\ud800" <= letter <= "\udfff" or letter == "\0" for letter in path):
                response = Problem(400, "the path is no UTF-8 text, or holds U+0000.").response()
                return await response(scope, receive, send)
            path = path.rstrip("/") or "/"
            scope = {
                **scope,
                "catlog.path": raw,
                "path": PREFIX + path if UNPREFIXED.match(path) else path,
            }
            # The server itself leaves the body of an answer to HEAD out.
            if scope["method"] == "HEAD":
                scope["method"] = "GET"
        return await self.app(scope, receive, send)


class Turns:
    """Lets nobody have more than AT_ONCE requests under way: what comes besides waits its turn.

    Otherwise one client with slow questions would have all threads there are.
    """

    def __init__(self, app: ASGIApp, settings: BaseSettings) -> None:
        self.app = app
        self.patience = settings.getfloat("CATLOG_API_TIMEOUT")
        # By who asks; there as long as a request has a turn, or waits for one.
        self.turns: WeakValueDictionary[bytes | str, asyncio.Semaphore] = WeakValueDictionary()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # To wait for something to claim takes no thread.
        if scope["type"] != "http" or scope["path"] in ("/healthz", CLAIM):
            return await self.app(scope, receive, send)
        headers = dict(scope["headers"])
        address = scope["client"][0] if scope["client"] else ""
        who = headers.get(b"authorization") or headers.get(b"x-api-key") or address
        turn = self.turns.setdefault(who, asyncio.Semaphore(AT_ONCE))
        try:
            async with asyncio.timeout(self.patience):
                await turn.acquire()
        except TimeoutError:
            return await BUSY.response()(scope, receive, send)
        try:
            await self.app(scope, receive, send)
        finally:
            turn.release()


class Limits:
    """Refuses what is too large or comes too slowly; puts security headers on every answer."""

    def __init__(self, app: ASGIApp, settings: BaseSettings) -> None:
        self.app = app
        self.most = settings.getint("CATLOG_API_BODY")
        self.most_batch = settings.getint("CATLOG_API_BATCH")
        self.patience = settings.getfloat("CATLOG_API_TIMEOUT")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        is_batch = bool(BATCHES.fullmatch(scope["path"]))
        most = self.most_batch if is_batch else self.most
        # A batch may take as long as its endpoint says, if it goes on coming.
        body = Body(receive, most, self.patience, is_batch=is_batch)
        started = refusing = False

        async def answer(message: Message) -> None:
            nonlocal started
            if body.problem and not started and not refusing:
                return  # the application takes it for a body that cannot be read
            if message["type"] == "http.response.start":
                started = True
                headers = message.setdefault("headers", [])
                named = {name.lower() for name, _ in headers}
                headers += [pair for pair in (*HEADERS, POLICY) if pair[0] not in named]
            await send(message)

        length = dict(scope["headers"]).get(b"content-length", b"0")
        try:
            if not length.isdigit() or int(length) > most:
                raise too_large(most)
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
                await STOPS.response()(scope, receive, answer)


BUSY = Problem(503, f"{AT_ONCE} requests of yours are under way.", headers={"Retry-After": "1"})
STOPS = Problem(503, "the server stops; ask again.", headers={"Retry-After": "5"})


def too_large(most: int) -> Problem:
    """What a body of more than *most* bytes is answered; nobody reads the rest of it."""
    return Problem(
        413, f"the body is larger than {most} bytes; send less.", headers={"Connection": "close"}
    )


class Body:
    """The messages of a request's body, counted and timed."""

    def __init__(
        self, receive: Receive, most: int, patience: float, *, is_batch: bool = False
    ) -> None:
        self.receive = receive
        self.most = most
        self.patience = patience
        self.until = math.inf if is_batch else asyncio.get_running_loop().time() + patience
        self.received = 0
        self.is_whole = False
        self.problem: Problem | None = None

    async def __call__(self) -> Message:
        """The next message. Raises Problem, and keeps it, where it is too much or too late."""
        if self.is_whole:  # then it is the client's going that is waited for
            return await self.receive()
        try:
            now = asyncio.get_running_loop().time()
            async with asyncio.timeout_at(min(now + self.patience, self.until)):
                message = await self.receive()
        except TimeoutError:
            self.problem = Problem(
                408, "the body took too long to arrive.", headers={"Connection": "close"}
            )
            raise self.problem from None
        if message["type"] == "http.request":
            self.received += len(message.get("body", b""))
            self.is_whole = not message.get("more_body", False)
            if self.received > self.most:
                self.problem = too_large(self.most)
                raise self.problem
        return message
