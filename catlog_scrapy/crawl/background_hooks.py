"""Hooks of the event loop, of Twisted and of threads that tell BackgroundErrors of exceptions."""

import asyncio
import logging
import sys
import threading
from collections.abc import Mapping
from functools import partial
from types import FrameType
from typing import Any

from twisted.internet import defer
from twisted.logger import globalLogPublisher

from catlog_scrapy.crawl.attempt import current_attempt
from catlog_scrapy.crawl.background_errors import (
    BackgroundErrors,
    failed_deferreds_of_process,
    record_raised,
)

# Scrapy logs here what a looping call raises.
LOOPING_CALL_LOGGER = "scrapy.utils.asyncio"
# Modules between `create_future` and the code that asks for the future, such as run_in_executor;
# the futures of asyncio's streams are asyncio's own.
FUTURE_MODULES = ("asyncio.base_events", "asyncio.futures")


def install_hooks(loop: asyncio.AbstractEventLoop) -> None:
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
        record_raised("a call of the event loop", context.get("exception"), attempt)

    loop.set_exception_handler(on_loop_error)
    logging.getLogger(LOOPING_CALL_LOGGER).addHandler(_LogHandler(logging.ERROR))
    publisher: Any = globalLogPublisher
    publisher.addObserver(_on_twisted_event)
    former_hook = threading.excepthook

    def on_thread_error(args: threading.ExceptHookArgs) -> None:
        former_hook(args)
        record_raised("a thread", args.exc_value)

    threading.excepthook = on_thread_error


class WatchedDebugInfo(defer.DebugInfo):
    """State of a Deferred that has failed, which Twisted logs when the Deferred is deleted."""

    def __init__(self) -> None:
        failed_deferreds_of_process.add(self)
        owner = _calling_owner("twisted")
        if owner is not None:
            owner.failed_deferreds.append(self)


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
        record_raised("a call of Twisted", failure.value)


class _LogHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            record_raised(record.getMessage(), record.exc_info[1], current_attempt.get())
