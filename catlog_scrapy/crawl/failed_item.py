"""Items that the fast path could not store, on their way to Scrapy's own pipeline code."""

from contextvars import ContextVar, Token
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


def set_failure(error: Exception) -> "Token[Exception | None]":
    """Let the pipelines of the current task raise *error*, until `reset_failure`."""
    return _failure.set(error)


def reset_failure(token: "Token[Exception | None]") -> None:
    """Let the pipelines of the current task process items again."""
    _failure.reset(token)


def raise_failure() -> None:
    """Raise the error of the current task's item, if the fast path met an error."""
    error = _failure.get()
    if error is not None:
        raise error
