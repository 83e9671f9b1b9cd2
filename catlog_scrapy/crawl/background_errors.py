"""Exceptions that nobody awaits: of tasks, delayed calls and threads that a project has started.

asyncio, Twisted and threading only log them, if at all: the exception of a task, a future or a
Deferred that the spider keeps is never reported.
"""

import asyncio
import gc
import logging
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from types import FrameType, TracebackType
from typing import Any
from weakref import WeakSet

from scrapy.crawler import Crawler
from twisted.internet import defer
from twisted.logger import globalLogPublisher

from catlog_scrapy.crawl.attempt import Attempt, current_attempt

logger = logging.getLogger(__name__)

# Scrapy logs here what a looping call raises.
LOOPING_CALL_LOGGER = "scrapy.utils.asyncio"
# Modules of this package and of Scrapy handle their own errors.
FOREIGN_PACKAGES = ("catlog_scrapy", "scrapy", "builtins")
# Modules between `create_future` and the code that asks for the future, such as run_in_executor;
# the futures of asyncio's streams are asyncio's own.
FUTURE_MODULES = ("asyncio.base_events", "asyncio.futures")

_open: "WeakSet[BackgroundErrors]" = WeakSet()
_failed_deferreds: "WeakSet[defer.DebugInfo]" = WeakSet()


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
        """Observe the event loop, the loggers and the threads of this process."""
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
        _install_hooks(asyncio.get_running_loop())

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
                _failed_deferreds.discard(deferred)
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
            for deferred in list(_failed_deferreds)
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


class WatchedDebugInfo(defer.DebugInfo):
    """State of a Deferred that has failed, which Twisted logs when the Deferred is deleted."""

    def __init__(self) -> None:
        _failed_deferreds.add(self)
        owner = _calling_owner("twisted")
        if owner is not None:
            owner.failed_deferreds.append(self)


def modules_of(traceback: TracebackType | None) -> Iterator[str]:
    """Yield the names of the modules in *traceback*."""
    while traceback is not None:
        yield traceback.tb_frame.f_globals.get("__name__", "")
        traceback = traceback.tb_next


def has_unseen_exception(future: "asyncio.Future[Any]") -> bool:
    """Return whether a task or future has an exception that nothing has asked for."""
    # asyncio itself logs by this attribute, when the future is deleted.
    return bool(getattr(future, "_log_traceback", False))


def _record(where: str, error: BaseException | None, attempt: Attempt | None = None) -> None:
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


def _install_hooks(loop: asyncio.AbstractEventLoop) -> None:
    """Install the hooks, once in a process."""
    if loop.get_task_factory() is _make_task:
        return
    loop.set_task_factory(_make_task)
    hooked_loop: Any = loop
    hooked_loop.create_future = partial(_make_future, loop)
    hooked_twisted: Any = defer
    hooked_twisted.DebugInfo = WatchedDebugInfo
    former = loop.get_exception_handler()

    def on_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if former:
            former(loop, context)
        else:
            loop.default_exception_handler(context)
        handle = context.get("handle")
        # The handler runs outside of the context of the call that failed.
        inner = getattr(handle, "_context", None)
        attempt = inner.get(current_attempt) if inner is not None else current_attempt.get()
        _record("a call of the event loop", context.get("exception"), attempt)

    loop.set_exception_handler(on_loop_error)
    logging.getLogger(LOOPING_CALL_LOGGER).addHandler(_LogHandler(logging.ERROR))
    publisher: Any = globalLogPublisher
    publisher.addObserver(_on_twisted_event)
    former_hook = threading.excepthook

    def on_thread_error(args: threading.ExceptHookArgs) -> None:
        former_hook(args)
        _record("a thread", args.exc_value)

    threading.excepthook = on_thread_error


def _make_task(loop: asyncio.AbstractEventLoop, coro: Any, **kwargs: Any) -> "asyncio.Task[Any]":
    task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **kwargs)
    owner = _calling_owner("asyncio")
    if owner is not None:
        task.add_done_callback(owner.on_done)
    return task


def _make_future(loop: asyncio.AbstractEventLoop) -> "asyncio.Future[Any]":
    future: asyncio.Future[Any] = asyncio.Future(loop=loop)
    owner = _calling_owner(*FUTURE_MODULES)
    if owner is not None:
        future.add_done_callback(owner.on_done)
    return future


def _calling_owner(*skipped: str) -> BackgroundErrors | None:
    """Return the recorder of the current attempt if its project has called the caller.

    Frames of modules whose names begin with one of *skipped* do not count.
    """
    attempt = current_attempt.get()
    if attempt is None or attempt.background is None:
        return None
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_globals.get("__name__", "").startswith(skipped):
        frame = frame.f_back
    if frame is None or not attempt.background.owns(frame.f_globals.get("__name__", "")):
        return None
    return attempt.background


def _on_twisted_event(event: Mapping[str, Any]) -> None:
    """Record what a delayed call, a thread of the pool or a Deferred without errback raises.

    Twisted's reactor runs its calls in any context.
    """
    failure = event.get("log_failure") or event.get("failure")  # the latter by twisted.python.log
    if failure is not None:
        _record("a call of Twisted", failure.value)


class _LogHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            _record(record.getMessage(), record.exc_info[1], current_attempt.get())
