"""Batches in which the failure of one thing does not stop the others."""

import logging
from collections.abc import Callable, Iterable
from typing import TypeVar

from sqlalchemy import exc

from catlog_scrapy.db.engine import UNAVAILABLE, reason
from catlog_scrapy.exceptions import CatlogError

logger = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

# Errors of the thing itself, which fail again at each try.
FAULTS = (CatlogError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError)
# SQLSTATE classes of such errors: data, constraints, limits.
PERMANENT_SQLSTATES = ("22", "23", "54")
# SQLSTATE classes of failing connections, and of a server that stops or starts.
UNAVAILABLE_SQLSTATES = ("08", "57P")


def run_each(
    things: Iterable[T], do: Callable[[T], R], give_up: Callable[[T, str], object]
) -> list[R]:
    """Call *do* with each thing, and return the results.

    A permanent failure goes to *give_up* with the reason. After a transient failure (a lock, a
    timeout) the thing is left for the next run. Raises DBAPIError if the database is unavailable.
    """
    done = []
    for thing in things:
        try:
            done.append(do(thing))
        except exc.DBAPIError as error:
            if is_outage(error):
                raise
            logger.warning("%s: %s", thing, reason(error))
            if _sqlstate(error).startswith(PERMANENT_SQLSTATES):
                give_up(thing, reason(error))
        except FAULTS as error:
            logger.warning("%s: %s", thing, error)
            give_up(thing, str(error) or type(error).__name__)
    return done


def is_outage(error: Exception) -> bool:
    """Return whether *error* says that the database is unavailable."""
    state = _sqlstate(error)
    return isinstance(error, UNAVAILABLE) and (not state or state.startswith(UNAVAILABLE_SQLSTATES))


def _sqlstate(error: Exception) -> str:
    return getattr(getattr(error, "orig", None), "pgcode", None) or ""
