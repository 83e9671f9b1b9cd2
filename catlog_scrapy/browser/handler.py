"""scrapy-playwright's download handler, bounded in time as Scrapy's own is."""

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
    """Opens requests with `meta["playwright"]` in the process's browser, the rest without."""

    async def download_request(self, request: Request) -> Response:
        """Raises DownloadTimeoutError after the request's `download_timeout` (seconds).

        What Playwright raises becomes a DownloadFailedError: Scrapy tries again.
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
            # The rest of it is Playwright's own log.
            raise DownloadFailedError(error.message.partition("\n")[0]) from error
        return response

    async def close(self) -> None:
        """Close the crawl's pages; a browser that hangs keeps no crawl from its end."""
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await super().close()
        except TimeoutError:
            logger.warning("the browser did not close its pages within %g s", CLOSE_TIMEOUT_S)
