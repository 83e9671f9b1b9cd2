"""Cancellations that foreign code raises by itself.

Scrapy waits for ever after a CancelledError or a GeneratorExit of a callback, a pipeline or
`start()`: both are no Exception, and the tasks that should go on end in silence.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

CANCELLATIONS = (asyncio.CancelledError, GeneratorExit)


class RaisedCancellation(RuntimeError):
    """Cancellation that code has raised though nobody cancelled its task; Scrapy handles it."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(f"{type(error).__name__} was raised, but nothing was cancelled")


@contextmanager
def converted_cancellations() -> Iterator[None]:
    """Raise a cancellation of the block as RaisedCancellation."""
    try:
        yield
    except CANCELLATIONS as error:
        if is_cancelled():
            raise
        raise RaisedCancellation(error) from error


async def await_converted(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Await *coroutine*; raise its cancellation as RaisedCancellation.

    Python closes all coroutines of a task whose future ends with GeneratorExit, so none of them
    could go on. The coroutine has a task of its own, and the caller waits without its exception.
    """
    task = asyncio.ensure_future(coroutine)
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        task.cancel()
        raise
    with converted_cancellations():
        return task.result()


def is_cancelled() -> bool:
    """Return whether the current task is being cancelled."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def raise_cancellation(error: BaseException, *, is_waiting: bool) -> NoReturn:
    """Raise a cancellation that a generator has met in its source, as RaisedCancellation.

    A generator that is closed gets GeneratorExit where it has yielded, so *is_waiting*.
    """
    if is_waiting or is_cancelled():
        raise error
    raise RaisedCancellation(error) from error


async def aiterate(items: AsyncIterable[Any]) -> AsyncIterator[Any]:
    """Yield *items*; raise their cancellation as RaisedCancellation."""
    is_waiting = False
    try:
        async for item in items:
            is_waiting = True
            yield item
            is_waiting = False
    except CANCELLATIONS as error:
        raise_cancellation(error, is_waiting=is_waiting)
