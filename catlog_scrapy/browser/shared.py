"""Browser of this process: the first crawl that needs a browser starts it, and all share it.

Playwright's driver is a child of this process, and the browser is a child of the driver. When this
process ends in any way, the driver's input ends, and the driver closes the browser. When the driver
ends, the kernel kills the browser. The browser's files are in a locked folder below the temporary
folder; the next start removes the folders of killed processes.
"""

import asyncio
import fcntl
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, BrowserContext, Error, Playwright, async_playwright
from scrapy.exceptions import NotSupported
from scrapy_playwright.handler import Config
from twisted.internet.defer import Deferred

from catlog_scrapy.exceptions import ConfigurationError
from catlog_scrapy.redaction import environment_without_secrets

logger = logging.getLogger(__name__)

BROWSER_EXECUTABLE = Path(__file__).with_name("executable.sh")
FOLDER_PREFIX = "catlog-browser-"
# A socket's path has at most 103 bytes, and the browser adds 44 bytes to its folder.
MAX_FOLDER_BYTES = 59
# Names of Chromium on different systems.
BROWSER_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
# Time that an unused browser waits for the next crawl.
IDLE_TIMEOUT_S = 20.0
# Limits for opening and closing contexts and the browser; beyond them a browser counts as hung.
OPEN_TIMEOUT_S = 30.0
CLOSE_TIMEOUT_S = 5.0


def find_browser(own: str) -> str:
    """Return the path of Playwright's *own* browser if installed, else of the system's.

    Raises ConfigurationError without a browser.
    """
    found = (
        own if Path(own).exists() else next(filter(None, map(shutil.which, BROWSER_NAMES)), None)
    )
    if found is None:
        raise ConfigurationError(
            "this machine has no Chromium; install it with `playwright install chromium` or"
            " `apt-get install chromium`"
        )
    return found


class BrowserFolder:
    """Folder of a browser's files, locked during the life of this process."""

    def __init__(self) -> None:
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
            self._lock = (self.path / "lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            # Another process may have removed the folder before it was locked.
            if self.path.exists():
                return
            self._lock.close()

    def environment(self) -> dict[str, str]:
        """Return TMPDIR for the browser, unless the paths of sockets would be too long."""
        return {"TMPDIR": str(self.path)} if len(str(self.path)) <= MAX_FOLDER_BYTES else {}

    def remove(self) -> None:
        """Remove the folder and its lock."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()

    @staticmethod
    def sweep() -> None:
        """Remove the folders of processes that have ended."""
        for path in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*"):
            # An OSError means a folder of another user, in use, or being made or removed.
            with suppress(OSError), (path / "lock").open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)


class SharedBrowser:
    """Running browser and its driver, which end IDLE_TIMEOUT_S after the last crawl has left."""

    current: "SharedBrowser | None" = None
    _starting = asyncio.Lock()
    _ends_with_process = False

    def __init__(self, playwright: Playwright, browser: Browser, folder: BrowserFolder) -> None:
        self.playwright = playwright
        self.browser = browser
        self.folder = folder
        self.users = 0
        self._lingers: asyncio.TimerHandle | None = None
        self._ending: asyncio.Future[None] | None = None
        browser.on("disconnected", self._disconnected)

    @classmethod
    async def get(cls, options: dict[str, Any]) -> "SharedBrowser":
        """Return the running browser for one more user, or launch a browser with *options*."""
        async with cls._starting:
            shared = cls.current
            if shared is None or not shared.browser.is_connected():
                shared = cls.current = await cls._start(options)
            shared.users += 1
            if shared._lingers:
                shared._lingers.cancel()
            return shared

    @classmethod
    async def _start(cls, options: dict[str, Any]) -> "SharedBrowser":
        BrowserFolder.sweep()
        folder = BrowserFolder()
        playwright = await async_playwright().start()
        try:
            executable = options.get("executable_path") or find_browser(
                playwright.chromium.executable_path
            )
            launched = await playwright.chromium.launch_persistent_context(
                folder.path / "profile",
                **{
                    "artifacts_dir": folder.path / "artifacts",
                    # Chromium refuses to run as root with a sandbox.
                    "chromium_sandbox": os.geteuid() != 0,
                    # A crawl continues after the first Ctrl-C in a terminal.
                    "handle_sigint": False,
                    "timeout": OPEN_TIMEOUT_S * 1000,
                    **options,
                    "executable_path": BROWSER_EXECUTABLE,
                    "env": {
                        **(options.get("env") or environment_without_secrets()),
                        **folder.environment(),
                        "BROWSER_PYTHON": sys.executable,
                        "BROWSER_EXECUTABLE": str(executable),
                    },
                },
            )
        except BaseException:
            await playwright.stop()
            folder.remove()
            raise
        assert launched.browser is not None
        cls._end_with_process()
        logger.info("started %s, %s", executable, launched.browser.version)
        return cls(playwright, launched.browser, folder)

    @classmethod
    def _end_with_process(cls) -> None:
        from twisted.internet import reactor

        if not cls._ends_with_process:
            cls._ends_with_process = True
            stopping: Any = reactor
            stopping.addSystemEventTrigger(
                "before", "shutdown", lambda: cls.current and Deferred.fromFuture(cls.current.end())
            )

    def leave(self) -> None:
        """Leave the browser as one of its users."""
        self.users -= 1
        if not self.users:
            self._lingers = asyncio.get_running_loop().call_later(IDLE_TIMEOUT_S, self.end)

    def end(self) -> "asyncio.Future[None]":
        """Close the browser; crawls that need a browser from now on get a new one."""
        if SharedBrowser.current is self:
            SharedBrowser.current = None
        self._ending = self._ending or asyncio.ensure_future(self._end())
        return self._ending

    async def _end(self) -> None:
        # A hung browser is killed by its driver later, when nobody waits for it.
        with suppress(TimeoutError, Error):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self.browser.close()
                await self.playwright.stop()
        self.folder.remove()

    def _disconnected(self, _: Browser) -> None:
        self.end()


class CrawlBrowser:
    """Shared browser in the view of one crawl; closing it closes this crawl's contexts only."""

    def __init__(self, shared: SharedBrowser) -> None:
        self.shared = shared
        self.listeners: list[tuple[str, Callable[..., Any]]] = []
        self.contexts: list[BrowserContext] = []

    async def new_context(self, **options: Any) -> BrowserContext:
        """Open a context with its own cookies and cache. Raises TimeoutError."""
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                context = await self.shared.browser.new_context(**options)
        except TimeoutError:
            # The browser hangs, so no other crawl may get it.
            self.shared.end()
            raise
        self.contexts.append(context)
        return context

    def on(self, event: Any, listener: Callable[..., Any]) -> None:
        """Call *listener* at each *event* until the crawl closes."""
        self.listeners.append((event, listener))
        self.shared.browser.on(event, listener)

    async def close(self) -> None:
        """Close this crawl's contexts and leave the browser to other crawls."""
        for event, listener in self.listeners:
            self.shared.browser.remove_listener(event, listener)
        try:
            for context in self.contexts:
                with suppress(Error):
                    await context.close()
        finally:
            self.shared.leave()


class SharedBrowserProvider:
    """Provider of the browser to scrapy-playwright, by the setting PLAYWRIGHT_BROWSER_PROVIDER."""

    def __init__(self, config: Config) -> None:
        self.config = config

    async def start(self) -> None:
        """Do nothing yet, as a crawl may fail before it opens a page."""

    async def launch_browser(self) -> CrawlBrowser:
        """Return the process's browser. Raises ConfigurationError or Playwright's errors."""
        return CrawlBrowser(await SharedBrowser.get(self.config.launch_options))

    async def launch_persistent_context(self, context_kwargs: dict[str, Any]) -> BrowserContext:
        """Refuse, as all crawls would share the cookies of a persistent context."""
        raise NotSupported(
            "user_data_dir is not supported: all crawls of a process share a browser"
        )

    async def close(self) -> None:
        """Do nothing; see CrawlBrowser.close."""
