"""Download handler of scrapy-playwright, with Scrapy's time limits."""

import asyncio
import logging

from playwright.async_api import Error
from scrapy import Request
from scrapy.exceptions import DownloadFailedError, DownloadTimeoutError
from scrapy.http import Response
from scrapy_playwright.handler import ScrapyPlaywrightDownloadHandler

from catlog_scrapy.browser.shared import CLOSE_TIMEOUT_S

logger = logging.getLogger(__name__)


class BrowserHandler(ScrapyPlaywrightDownloadHandler):
    """Handler that opens requests with `meta["playwright"]` in the process's browser."""

    async def download_request(self, request: Request) -> Response:
        """Download within the request's `download_timeout` (seconds).

        Raises DownloadTimeoutError, and DownloadFailedError for Playwright's errors; Scrapy retries
        both.
        """
        seconds = request.meta.get("download_timeout")
        try:
            async with asyncio.timeout(seconds):
                response: Response = await super().download_request(request)
        except TimeoutError as error:
            raise DownloadTimeoutError(
                f"Getting {request.url} took longer than {seconds} seconds."
            ) from error
        except Error as error:
            # The other lines of the message are Playwright's log.
            raise DownloadFailedError(error.message.partition("\n")[0]) from error
        return response

    async def close(self) -> None:
        """Close the crawl's pages, without waiting long for a hung browser."""
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await super().close()
        except TimeoutError:
            logger.warning("the browser did not close its pages within %g s", CLOSE_TIMEOUT_S)
