"""Exceptions that nobody awaits: of tasks, delayed calls and threads that a project has started.

asyncio, Twisted and threading only log them, if at all: the exception of a task, a future or a
Deferred that the spider keeps is never reported.
"""

import asyncio
import gc
import logging
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any
from weakref import WeakSet

from scrapy.crawler import Crawler
from twisted.internet import defer

from catlog_scrapy.crawl.attempt import Attempt

logger = logging.getLogger(__name__)

# Modules of this package and of Scrapy handle their own errors.
FOREIGN_PACKAGES = ("catlog_scrapy", "scrapy", "builtins")

_open: "WeakSet[BackgroundErrors]" = WeakSet()
# State of each Deferred that has failed and still exists, whoever has made it.
failed_deferreds_of_process: "WeakSet[defer.DebugInfo]" = WeakSet()


class BackgroundErrors:
    """Recorder of exceptions that the spider or its project raises in the background of a crawl.

    An exception counts if code of the project has made the task, or is in the traceback: libraries
    such as Playwright leave exceptions of their own behind.
    """

    def __init__(self, crawler: Crawler, attempt: Attempt) -> None:
        self.crawler = crawler
        self.attempt = attempt
        self.failed: list[asyncio.Future[Any]] = []
        self.failed_deferreds: list[defer.DebugInfo] = []
        self.modules: set[str] = set()
        self.packages: set[str] = set()

    def install(self) -> None:
        """Take the exceptions that the hooks of this process meet; see background_hooks."""
        spider = self.crawler.spider
        self.modules = {
            cls.__module__
            for cls in type(spider).__mro__
            if not cls.__module__.startswith(("scrapy.", "builtins"))
        }
        names = [*self.modules, *self.crawler.settings.getlist("SPIDER_MODULES")]
        self.packages = {name.partition(".")[0] for name in names} - set(FOREIGN_PACKAGES)
        self.attempt.background = self
        _open.add(self)

    def collect(self) -> None:
        """Record the exceptions that nobody has awaited, as the crawl ends."""
        _open.discard(self)
        for future in [*self.failed, *self._gathering_futures()]:
            if not has_unseen_exception(future):
                continue
            error = future.exception()
            if error is not None:
                kind = "task" if isinstance(future, asyncio.Task) else "future"
                logger.error("a %s that nobody awaits failed", kind, exc_info=error)
                self.attempt.record_error(f"a {kind} that nobody awaits", error)
        self.failed.clear()
        for deferred in [*self.failed_deferreds, *self._kept_deferreds()]:
            error = deferred.failResult and deferred.failResult.value
            if error is not None:
                logger.error("a Deferred without an errback failed", exc_info=error)
                self.attempt.record_error("a Deferred without an errback", error)
                failed_deferreds_of_process.discard(deferred)
        self.failed_deferreds.clear()

    def _gathering_futures(self) -> list["asyncio.Future[Any]"]:
        """Return the futures of `asyncio.gather` that have got an exception of their members."""
        # Only the garbage collector finds a gathering future, so it searches if there is a reason.
        errors = [
            future.exception()
            for future in self.failed
            if not future.cancelled() and not has_unseen_exception(future)
        ]
        if not errors:
            return []
        return [
            found
            for found in gc.get_objects()
            if type(found).__name__ == "_GatheringFuture"
            and has_unseen_exception(found)
            and any(found._exception is error for error in errors)
        ]

    def _kept_deferreds(self) -> list[defer.DebugInfo]:
        """Return failed Deferreds by their tracebacks, unless another crawl may handle them."""
        return [
            deferred
            for deferred in list(failed_deferreds_of_process)
            if deferred.failResult is not None
            and deferred.failResult.value is not None
            and _raisers([self, *_open], deferred.failResult.value) == [self]
        ]

    def owns(self, module: str) -> bool:
        """Return whether *module* belongs to the project or is the module of the spider."""
        return module.partition(".")[0] in self.packages or module in self.modules

    def has_raised(self, traceback: TracebackType | None) -> bool:
        """Return whether code of the project is in *traceback*."""
        return any(map(self.owns, modules_of(traceback)))

    def has_raised_itself(self, traceback: TracebackType | None) -> bool:
        """Return whether code of the spider's own modules is in *traceback*."""
        return any(module in self.modules for module in modules_of(traceback))

    def on_done(self, future: "asyncio.Future[Any]") -> None:
        """Keep a failed future: whether somebody awaits it is known only at the end."""
        if has_unseen_exception(future):
            self.failed.append(future)


def modules_of(traceback: TracebackType | None) -> Iterator[str]:
    """Yield the names of the modules in *traceback*."""
    while traceback is not None:
        yield traceback.tb_frame.f_globals.get("__name__", "")
        traceback = traceback.tb_next


def has_unseen_exception(future: "asyncio.Future[Any]") -> bool:
    """Return whether a task or future has an exception that nothing has asked for."""
    # asyncio itself logs by this attribute, when the future is deleted.
    return bool(getattr(future, "_log_traceback", False))


def record_raised(where: str, error: BaseException | None, attempt: Attempt | None = None) -> None:
    """Record an exception for the *attempt* of its context, else for all that may have raised it.

    Several attempts of one spider in a process cannot be told apart: all of them fail.
    """
    if error is None:
        return
    owner = attempt.background if attempt else None
    if owner not in _open:
        candidates = _raisers(_open, error)
    else:
        candidates = [owner] if owner and owner.has_raised(error.__traceback__) else []
    for errors in candidates:
        errors.attempt.record_error(where, error)


def _raisers(recorders: Iterable[BackgroundErrors], error: BaseException) -> list[BackgroundErrors]:
    """Return the *recorders* whose project may have raised *error*."""
    raised = [errors for errors in recorders if errors.has_raised(error.__traceback__)]
    exact = [errors for errors in raised if errors.has_raised_itself(error.__traceback__)]
    return exact or raised
