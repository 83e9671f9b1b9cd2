"""Traffic of one page: its requests, responses and troubles."""

import json
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any

from playwright.async_api import Error, Page, Request, Response, Route

# Resources that may lead to further requests of the page.
LOADING_TYPES = {"document", "script", "xhr", "fetch"}
# Resources that the data does not need.
BLOCKED_TYPES = {"image", "media", "font"}


class PageTraffic:
    """Requests of one page and the documents among their responses.

    `wanted` are the requests for data, in order, and `documents` their parsed responses. `pending`
    are the requests whose responses the page may still use; `changes` counts their starts and ends.
    `troubles` are failures that may explain missing data; `fault` is the failure of the reading.
    """

    def __init__(
        self, wants: Callable[[str], bool], may_ask: Callable[[str], Awaitable[bool]]
    ) -> None:
        self._wants = wants
        self._may_ask = may_ask
        self.status = 0
        self.fault: Exception | None = None
        self.troubles: list[str] = []
        self.wanted: list[Request] = []
        self.documents: dict[Request, Any] = {}
        self.pending: set[Request] = set()
        self.changes = 0
        self.wanted_at = -math.inf

    async def follow(self, page: Page) -> None:
        """Follow the traffic of a page that is about to open."""
        page.on("request", self._on_request)
        page.on("request", self._check_redirect)
        page.on("response", self._on_response)
        page.on("requestfinished", self._on_finished)
        page.on("requestfailed", self._on_failed)
        await page.route("**", self._route)

    def fail(self, reason: str) -> None:
        """Fail the reading, unless it has failed before."""
        self.fault = self.fault or ConnectionError(reason)

    def _on_request(self, request: Request) -> None:
        self.changes += 1
        if self._wants(request.url):
            self.wanted.append(request)
            self.wanted_at = time.monotonic()
        if request.resource_type in LOADING_TYPES or request in self.wanted:
            self.pending.add(request)

    async def _check_redirect(self, request: Request) -> None:
        """Fail on a redirect to a forbidden URL, which bypasses routes and is already sent."""
        if request.redirected_from and not await self._may_ask(request.url):
            self._add_trouble(request, f"Forbidden by robots.txt: {request.url}")
            self.fail(f"{request.redirected_from.url} leads to a URL that robots.txt forbids")

    def _on_response(self, response: Response) -> None:
        request = response.request
        if request.is_navigation_request() and request.frame.parent_frame is None:
            self.status = response.status

    async def _on_finished(self, request: Request) -> None:
        """Parse a document at once, as the browser drops it when the page navigates."""
        try:
            response = await request.response()
            assert response is not None
            if response.status >= 400:
                self._add_trouble(request, f"HTTP {response.status} for {request.url}")
            elif request in self.wanted and request.redirected_to is None:
                self.documents[request] = json.loads(await response.body())
            elif request in self.wanted:
                self.wanted.remove(request)
        except Error as error:
            self._add_trouble(request, f"{error.message} for {request.url}")
        except ValueError as error:
            self._add_trouble(request, f"{request.url} is not valid JSON: {error}")
        finally:
            self._end(request)

    def _on_failed(self, request: Request) -> None:
        """Note a request without a complete response."""
        if request.resource_type not in BLOCKED_TYPES:
            self._add_trouble(request, f"{request.failure} for {request.url}")
        self._end(request)

    def _add_trouble(self, request: Request, reason: str) -> None:
        self.troubles.append(reason)
        if request in self.wanted:
            self.fail(reason)

    def _end(self, request: Request) -> None:
        self.changes += 1
        self.pending.discard(request)

    async def _route(self, route: Route, request: Request) -> None:
        """Send only requests that the data needs and robots.txt allows."""
        if request.resource_type in BLOCKED_TYPES:
            await route.abort()
        elif await self._may_ask(request.url):
            await route.fallback()
        else:
            self._add_trouble(request, f"forbidden by robots.txt: {request.url}")
            await route.abort()
