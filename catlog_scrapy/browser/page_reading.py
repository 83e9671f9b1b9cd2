"""A page while it is read: what it asks for, what comes of it, and what goes wrong."""

import asyncio
import json
import math
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import scrapy
from playwright.async_api import Error, Page, Request, Response, Route
from playwright.async_api import TimeoutError as PageTimeout

# What may make a page ask for more, and what it can do without.
LOADING_TYPES = {"document", "script", "xhr", "fetch"}
BLOCKED_TYPES = {"image", "media", "font"}
# A page that asked for data so few seconds ago has not come to its end.
SETTLE_S = 1.0


@dataclass(frozen=True)
class ReadingPlan:
    """What to do on a page, and what to take from it: see BrowserResponses, whose names these are.

    `may_ask` says of a URL whether robots.txt allows it.
    """

    clicks: Sequence[tuple[str, str]]
    wanted: str
    unwanted: str
    within: float
    quiet: float
    may_ask: Callable[[str], Awaitable[bool]]

    def wants(self, url: str) -> bool:
        """Whether what *url* answers is data."""
        return self.wanted in url and not (self.unwanted and self.unwanted in url)


class PageReading:
    """Reads the page of one request; what comes of it is then in that request's `meta`.

    `documents` are those that the plan wants, in the order in which they were asked for; `fault`,
    an exception or None, is why they are not all. A page that is no page, such as a 404, is left to
    Scrapy: it has neither.
    """

    def __init__(self, plan: ReadingPlan) -> None:
        self.plan = plan

    async def begin(self, page: Page, request: scrapy.Request) -> None:
        """Before *page* is opened; where a browser has died, once more with another page."""
        self.meta = request.meta
        self.meta |= {"documents": [], "fault": None}
        self.status = 0
        self.fault: Exception | None = None
        # What else went wrong: it may explain why there is no more.
        self.troubles: list[str] = []
        self.wanted: list[Request] = []
        self.documents: dict[Request, Any] = {}
        self.pending: set[Request] = set()
        self.changes = 0
        self.last_wanted = -math.inf
        # Nobody would follow what another page asks for.
        await page.add_init_script("window.open = () => null")
        page.on("popup", lambda popup: popup.close())
        page.on("request", self._on_request)
        page.on("request", self._check_redirect)
        page.on("response", self._on_response)
        page.on("requestfinished", self._on_finished)
        page.on("requestfailed", self._on_failed)
        await page.route("**", self._route)

    async def read(self, page: Page) -> None:
        """Once *page* is open: click, wait, and take what came."""
        if self.status >= 400:
            return
        seen = 0
        for prefix, text in self.plan.clicks:
            seen = len(self.wanted)
            if not await self._click(page, prefix, text):
                break
        else:
            await self._wait_until_quiet(seen)
            if len(self.wanted) == seen:
                self._fail_missing(
                    f"{page.url} asked for nothing with {self.plan.wanted!r} in its URL"
                )
        self.meta["fault"] = self.fault
        self.meta["documents"] = [self.documents.get(request) for request in self.wanted]

    async def _click(self, page: Page, prefix: str, text: str) -> bool:
        """Click the first element with that text that shows; whether there was one."""
        words = r"\s+".join(map(re.escape, text.split()))
        element = (
            page.locator(f'[class^="{prefix}"], [class*=" {prefix}"]')
            .filter(has_text=re.compile(rf"^\s*{words}\s*$"), visible=True)
            .first
        )
        milliseconds = self.plan.within * 1000
        try:
            await element.wait_for(timeout=milliseconds)
        except PageTimeout:
            self._fail_missing(f"{page.url} has no {prefix} with the text {text!r}")
            return False
        await element.click(timeout=milliseconds)
        return True

    async def _wait_until_quiet(self, seen: int) -> None:
        """Wait until all is answered, something wanted among it, and no more is asked for."""
        try:
            async with asyncio.timeout(self.plan.within):
                while not self.fault:
                    changes = self.changes
                    await asyncio.sleep(self.plan.quiet)
                    is_quiet = not self.pending and changes == self.changes
                    if is_quiet and len(self.wanted) > seen:
                        return
        except TimeoutError:
            for request in self.pending:
                self._fail(f"{request.url} had no answer within {self.plan.within:g} s")
            if time.monotonic() - self.last_wanted < max(SETTLE_S, 2 * self.plan.quiet):
                self._fail(f"the page still asked for more after {self.plan.within:g} s")

    def _fail_missing(self, what: str) -> None:
        """*what* is missing; because of something that went wrong before, or for no such reason."""
        late = [f"{request.url} had no answer by then" for request in self.pending]
        if reasons := self.troubles + late:
            self._fail(f"{what} after {self.plan.within:g} s; {reasons[0]}")
        elif self.fault is None:
            self.fault = ValueError(f"{what}: the markup has changed.")

    def _fail(self, why: str) -> None:
        self.fault = self.fault or ConnectionError(why)

    def _on_request(self, request: Request) -> None:
        self.changes += 1
        if self.plan.wants(request.url):
            self.wanted.append(request)
            self.last_wanted = time.monotonic()
        if request.resource_type in LOADING_TYPES or request in self.wanted:
            self.pending.add(request)

    async def _check_redirect(self, request: Request) -> None:
        """No route sees where an answer leads: what must not be asked for has been, once."""
        if request.redirected_from and not await self.plan.may_ask(request.url):
            self._record_trouble(request, f"Forbidden by robots.txt: {request.url}")
            self._fail(f"{request.redirected_from.url} leads to what robots.txt forbids")

    def _on_response(self, response: Response) -> None:
        request = response.request
        if request.is_navigation_request() and request.frame.parent_frame is None:
            self.status = response.status

    async def _on_finished(self, request: Request) -> None:
        """Take the answer at once: the page may go elsewhere, and all it has got with it."""
        try:
            response = await request.response()
            assert response is not None
            if response.status >= 400:
                self._record_trouble(request, f"HTTP {response.status} for {request.url}")
            elif request in self.wanted and request.redirected_to is None:
                self.documents[request] = json.loads(await response.body())
            elif request in self.wanted:
                self.wanted.remove(request)
        except Error as error:
            self._record_trouble(request, f"{error.message} for {request.url}")
        except ValueError as error:
            self._record_trouble(request, f"{request.url} is no JSON: {error}")
        finally:
            self._done(request)

    def _on_failed(self, request: Request) -> None:
        """No answer, or half of one."""
        if request.resource_type not in BLOCKED_TYPES:
            self._record_trouble(request, f"{request.failure} for {request.url}")
        self._done(request)

    def _record_trouble(self, request: Request, why: str) -> None:
        self.troubles.append(why)
        if request in self.wanted:
            self._fail(why)

    def _done(self, request: Request) -> None:
        self.changes += 1
        self.pending.discard(request)

    async def _route(self, route: Route, request: Request) -> None:
        """Send what may and need be sent."""
        if request.resource_type in BLOCKED_TYPES:
            await route.abort()
        elif await self.plan.may_ask(request.url):
            await route.fallback()
        else:
            self._record_trouble(request, f"forbidden by robots.txt: {request.url}")
            await route.abort()
