"""Exceptions that nobody awaits: of tasks, delayed calls and threads that a project has started.

asyncio, Twisted and threading only log them, if at all: the exception of a task that the spider
keeps is never reported.
"""

import asyncio
import logging
import sys
import threading
from collections.abc import Iterator, Mapping
from types import FrameType, TracebackType
from typing import Any
from weakref import WeakSet

from scrapy.crawler import Crawler
from twisted.logger import globalLogPublisher

from catlog_scrapy.crawl.attempt import Attempt, current_attempt

logger = logging.getLogger(__name__)

# Scrapy logs here what a looping call raises.
LOOPING_CALL_LOGGER = "scrapy.utils.asyncio"
# Modules of this package and of Scrapy handle their own errors.
FOREIGN_PACKAGES = ("catlog_scrapy", "scrapy", "builtins")

_open: "WeakSet[BackgroundErrors]" = WeakSet()


class BackgroundErrors:
    """Recorder of exceptions that the spider or its project raises in the background of a crawl.

    An exception counts if code of the project has made the task, or is in the traceback: libraries
    such as Playwright leave exceptions of their own behind.
    """

    def __init__(self, crawler: Crawler, attempt: Attempt) -> None:
        self.crawler = crawler
        self.attempt = attempt
        self.failed_tasks: list[asyncio.Task[Any]] = []
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
        """Record the exceptions of tasks that nobody has awaited, as the crawl ends."""
        _open.discard(self)
        for task in self.failed_tasks:
            if not has_unseen_exception(task):
                continue
            error = task.exception()
            if error is not None:
                logger.error("a task that nobody awaits failed", exc_info=error)
                self.attempt.record_error("a task that nobody awaits", error)
        self.failed_tasks.clear()

    def owns(self, module: str) -> bool:
        """Return whether *module* belongs to the project or is the module of the spider."""
        return module.partition(".")[0] in self.packages or module in self.modules

    def has_raised(self, traceback: TracebackType | None) -> bool:
        """Return whether code of the project is in *traceback*."""
        return any(map(self.owns, modules_of(traceback)))

    def has_raised_itself(self, traceback: TracebackType | None) -> bool:
        """Return whether code of the spider's own modules is in *traceback*."""
        return any(module in self.modules for module in modules_of(traceback))

    def on_task_done(self, task: "asyncio.Task[Any]") -> None:
        """Keep a failed task: whether somebody awaits it is known only at the end."""
        if has_unseen_exception(task):
            self.failed_tasks.append(task)


def modules_of(traceback: TracebackType | None) -> Iterator[str]:
    """Yield the names of the modules in *traceback*."""
    while traceback is not None:
        yield traceback.tb_frame.f_globals.get("__name__", "")
        traceback = traceback.tb_next


def has_unseen_exception(task: "asyncio.Task[Any]") -> bool:
    """Return whether a task has an exception that nothing has asked for."""
    # asyncio itself logs by this attribute, when the task is deleted.
    return bool(getattr(task, "_log_traceback", False))


def _record(where: str, error: BaseException | None, attempt: Attempt | None = None) -> None:
    """Record an exception for the *attempt* of its context, else for all that may have raised it.

    Several attempts of one spider in a process cannot be told apart: all of them fail.
    """
    if error is None:
        return
    owner = attempt.background if attempt else None
    if owner not in _open:
        raised = [errors for errors in _open if errors.has_raised(error.__traceback__)]
        exact = [errors for errors in raised if errors.has_raised_itself(error.__traceback__)]
        candidates = exact or raised
    else:
        candidates = [owner] if owner and owner.has_raised(error.__traceback__) else []
    for errors in candidates:
        errors.attempt.record_error(where, error)


def _install_hooks(loop: asyncio.AbstractEventLoop) -> None:
    """Install the hooks, once in a process."""
    if loop.get_task_factory() is _make_task:
        return
    loop.set_task_factory(_make_task)
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
    attempt = current_attempt.get()
    if attempt is not None and attempt.background is not None:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_globals.get("__name__", "").startswith("asyncio"):
            frame = frame.f_back
        if frame is not None and attempt.background.owns(frame.f_globals.get("__name__", "")):
            task.add_done_callback(attempt.background.on_task_done)
    return task


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
