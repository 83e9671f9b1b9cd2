"""Reading of one page: clicks, waiting, and the documents that the page requested."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import scrapy
from playwright.async_api import Page
from playwright.async_api import TimeoutError as PageTimeout

from catlog_scrapy.browser.page_traffic import PageTraffic

# A page that requested data less than this time ago is still loading.
SETTLE_S = 1.0


@dataclass(frozen=True)
class ReadingPlan:
    """Clicks to do on a page and data to take from it; see BrowserResponses for the fields.

    `may_ask` returns whether robots.txt allows a URL.
    """

    clicks: Sequence[tuple[str, str]]
    wanted: str
    unwanted: str
    within: float
    quiet: float
    may_ask: Callable[[str], Awaitable[bool]]

    def wants(self, url: str) -> bool:
        """Return whether the response of *url* is data."""
        return self.wanted in url and not (self.unwanted and self.unwanted in url)


class PageReading:
    """Reading of the page of one request, with its results in the request's `meta`.

    `documents` are the documents that the plan wants, in the order of their requests. `fault` is
    the exception that explains missing documents, or None. Scrapy handles an error page such as a
    404; the reading then leaves both empty.
    """

    def __init__(self, plan: ReadingPlan) -> None:
        self.plan = plan

    async def begin(self, page: Page, request: scrapy.Request) -> None:
        """Prepare *page* before it opens; again with another page if the browser has died."""
        self.meta = request.meta
        self.meta |= {"documents": [], "fault": None}
        self.traffic = PageTraffic(self.plan.wants, self.plan.may_ask)
        # A window would load pages that this reading does not follow.
        await page.add_init_script("window.open = () => null")
        page.on("popup", lambda popup: popup.close())
        await self.traffic.follow(page)

    async def read(self, page: Page) -> None:
        """Click, wait and take the documents of an open page."""
        traffic = self.traffic
        if traffic.status >= 400:
            return
        seen = 0
        for prefix, text in self.plan.clicks:
            seen = len(traffic.wanted)
            if not await self._click(page, prefix, text):
                break
        else:
            await self._wait_until_quiet(seen)
            if len(traffic.wanted) == seen:
                self._fail_missing(f"{page.url} requested no URL with {self.plan.wanted!r} in it")
        self.meta["fault"] = traffic.fault
        self.meta["documents"] = [traffic.documents.get(request) for request in traffic.wanted]

    async def _click(self, page: Page, prefix: str, text: str) -> bool:
        """Click the first visible element with that class and text; return whether it exists."""
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
        """Wait until more than *seen* documents have come and no request is pending or new."""
        traffic = self.traffic
        try:
            async with asyncio.timeout(self.plan.within):
                while not traffic.fault:
                    changes = traffic.changes
                    await asyncio.sleep(self.plan.quiet)
                    is_quiet = not traffic.pending and changes == traffic.changes
                    if is_quiet and len(traffic.wanted) > seen:
                        return
        except TimeoutError:
            for request in traffic.pending:
                traffic.fail(f"{request.url} had no answer within {self.plan.within:g} s")
            if time.monotonic() - traffic.wanted_at < max(SETTLE_S, 2 * self.plan.quiet):
                traffic.fail(f"the page still requested data after {self.plan.within:g} s")

    def _fail_missing(self, missing: str) -> None:
        """Fail with an earlier trouble as the cause, or else with a changed markup."""
        traffic = self.traffic
        late = [f"{request.url} had no answer by then" for request in traffic.pending]
        if causes := traffic.troubles + late:
            traffic.fail(f"{missing} after {self.plan.within:g} s; {causes[0]}")
        elif traffic.fault is None:
            traffic.fault = ValueError(f"{missing}: the markup has changed.")
