"""Of many things to do, one that cannot be done stops none of the others."""

import logging
from collections.abc import Callable, Iterable
from typing import TypeVar

from sqlalchemy import exc

from catlog_scrapy.db.engine import UNAVAILABLE, reason
from catlog_scrapy.exceptions import CatlogError

logger = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

# What is wrong with the thing itself, so that to try it again is in vain: of SQLSTATE the classes
# of data, of constraints, and of limits.
FAULTS = (CatlogError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError)
PERMANENT_SQLSTATES = ("22", "23", "54")
# Connections that fail, and a server that stops or starts.
UNAVAILABLE_SQLSTATES = ("08", "57P")


def run_each(
    things: Iterable[T], do: Callable[[T], R], give_up: Callable[[T, str], object]
) -> list[R]:
    """*do* for each thing; what was done.

    One that cannot be done is given up, with the reason; one that cannot be done now (a lock, a
    time limit) is left for the next time. Raises what says that the database is away.
    """
    done = []
    for thing in things:
        try:
            done.append(do(thing))
        except exc.DBAPIError as error:
            state = getattr(error.orig, "pgcode", None) or ""
            if isinstance(error, UNAVAILABLE) and (
                not state or state.startswith(UNAVAILABLE_SQLSTATES)
            ):
                raise
            logger.warning("%s: %s", thing, reason(error))
            if state.startswith(PERMANENT_SQLSTATES):
                give_up(thing, reason(error))
        except FAULTS as error:
            logger.warning("%s: %s", thing, error)
            give_up(thing, str(error) or type(error).__name__)
    return done
