"""The browser of this process: started by the first crawl that needs one, shared by all.

Playwright's driver is a child of this process, the browser a child of the driver. When this process
ends, however it does, the driver's input ends, and it closes the browser; when the driver ends,
the browser is killed. Its files are in a folder of the temporary one, which is locked while it is
used; what a killed process left there, the next browser's start removes.
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

logger = logging.getLogger(__name__)

BROWSER_EXECUTABLE = Path(__file__).with_name("executable.sh")
FOLDER_PREFIX = "catlog-browser-"
# A socket's path may have 103 bytes; what the browser puts behind the folder has 44.
MAX_FOLDER_BYTES = 59
# What systems call it.
BROWSER_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
# Seconds that a browser which nobody uses waits for the next crawl.
IDLE_TIMEOUT_S = 20.0
# Seconds within which it opens what it is asked to, or is taken for hung; and closes.
OPEN_TIMEOUT_S = 30.0
CLOSE_TIMEOUT_S = 5.0


def find_browser(own: str) -> str:
    """The executable: Playwright's *own*, if it was installed, or else the system's.

    Raises ConfigurationError where there is none.
    """
    found = (
        own if Path(own).exists() else next(filter(None, map(shutil.which, BROWSER_NAMES)), None)
    )
    if found is None:
        raise ConfigurationError(
            "there is no browser on this machine; get one by `playwright install chromium`"
            " or `apt-get install chromium`"
        )
    return found


class BrowserFolder:
    """A folder for a browser's files, locked for as long as this process lives."""

    def __init__(self) -> None:
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
            self._lock = (self.path / "lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            # Somebody who swept may have been faster with the lock.
            if self.path.exists():
                return
            self._lock.close()

    def environment(self) -> dict[str, str]:
        """What makes it the browser's temporary folder, unless its sockets' paths grow too long."""
        return {"TMPDIR": str(self.path)} if len(str(self.path)) <= MAX_FOLDER_BYTES else {}

    def remove(self) -> None:
        """Be rid of it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()

    @staticmethod
    def sweep() -> None:
        """Remove those whose process is gone."""
        for path in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*"):
            # Somebody else's, in use, or just being made or removed.
            with suppress(OSError), (path / "lock").open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)


class SharedBrowser:
    """A running browser and its driver; it ends a while after its last user has left."""

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
        """The one that runs, with one user more; or a new one, launched with *options*."""
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
                    # Chromium refuses to sandbox what root runs.
                    "chromium_sandbox": os.geteuid() != 0,
                    # A crawl may go on after the terminal's first Ctrl-C.
                    "handle_sigint": False,
                    "timeout": OPEN_TIMEOUT_S * 1000,
                    **options,
                    "executable_path": BROWSER_EXECUTABLE,
                    "env": {
                        **(options.get("env") or os.environ),
                        **folder.environment(),
                        "CATLOG_BROWSER_PYTHON": sys.executable,
                        "CATLOG_BROWSER": str(executable),
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
        """One user less."""
        self.users -= 1
        if not self.users:
            self._lingers = asyncio.get_running_loop().call_later(IDLE_TIMEOUT_S, self.end)

    def end(self) -> "asyncio.Future[None]":
        """Close it, if that has not begun; who needs one from now on gets another."""
        if SharedBrowser.current is self:
            SharedBrowser.current = None
        self._ending = self._ending or asyncio.ensure_future(self._end())
        return self._ending

    async def _end(self) -> None:
        # One that hangs is killed by its driver, later, when there is nobody left to wait.
        with suppress(TimeoutError, Error):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self.browser.close()
                await self.playwright.stop()
        self.folder.remove()

    def _disconnected(self, _: Browser) -> None:
        self.end()


class CrawlBrowser:
    """The shared browser as one crawl has it: closing it closes what this crawl has opened."""

    def __init__(self, shared: SharedBrowser) -> None:
        self.shared = shared
        self.listeners: list[tuple[str, Callable[..., Any]]] = []
        self.contexts: list[BrowserContext] = []

    async def new_context(self, **options: Any) -> BrowserContext:
        """A context of its own: no cookie and no cache is shared. Raises TimeoutError."""
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                context = await self.shared.browser.new_context(**options)
        except TimeoutError:
            # It hangs: nobody is to get it again.
            self.shared.end()
            raise
        self.contexts.append(context)
        return context

    def on(self, event: Any, listener: Callable[..., Any]) -> None:
        """Call *listener* at *event* for as long as the crawl runs."""
        self.listeners.append((event, listener))
        self.shared.browser.on(event, listener)

    async def close(self) -> None:
        """Leave it to the others."""
        for event, listener in self.listeners:
            self.shared.browser.remove_listener(event, listener)
        try:
            for context in self.contexts:
                with suppress(Error):
                    await context.close()
        finally:
            self.shared.leave()


class SharedBrowserProvider:
    """The setting PLAYWRIGHT_BROWSER_PROVIDER: where scrapy-playwright gets its browser from."""

    def __init__(self, config: Config) -> None:
        self.config = config

    async def start(self) -> None:
        """Nothing yet: a crawl may fail before it opens a page."""

    async def launch_browser(self) -> CrawlBrowser:
        """The process's browser. Raises ConfigurationError, or what Playwright raises."""
        return CrawlBrowser(await SharedBrowser.get(self.config.launch_options))

    async def launch_persistent_context(self, context_kwargs: dict[str, Any]) -> BrowserContext:
        """What one crawl keeps another would see."""
        raise NotSupported("user_data_dir: the browser is shared by all crawls of a process")

    async def close(self) -> None:
        """Nothing: see CrawlBrowser.close."""
