"""Items that the fast path could not store, on their way to Scrapy's own pipeline code."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

# Error of the item that the current task processes; raised by ValidatePipeline.
_failure: ContextVar[Exception | None] = ContextVar("failure", default=None)


@dataclass(frozen=True, slots=True)
class FailedItem:
    """Item with the error that the fast path met; Scrapy logs, counts and signals the error.

    The item is not processed a second time: an iterator in the item may be exhausted, and a record
    type's validator may depend on former items.
    """

    item: Any
    error: Exception


@contextmanager
def failing(failed: FailedItem) -> Iterator[Any]:
    """Let the pipelines of the current task raise the error of a failed item; yield the item."""
    token = _failure.set(failed.error)
    try:
        yield failed.item
    finally:
        _failure.reset(token)


def raise_failure() -> None:
    """Raise the error of the current task's item, if the fast path met an error."""
    error = _failure.get()
    if error is not None:
        raise error
