"""How long to wait, and to let wait: to change what others read is to stand in their way."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from psycopg2.errors import DeadlockDetected, LockNotAvailable
from sqlalchemy import Connection, Engine, exc

from catlog_scrapy.db.watchdog import extend_timeout
from catlog_scrapy.exceptions import NotPossible
from catlog_scrapy.store.sql import run

# Any number that nobody else uses for an advisory lock in this database.
APPLY_LOCK = 4_226_003
MAX_TRIES = 5
# Seconds. Whoever comes to read while we wait for a lock has to wait as well.
LOCK_TIMEOUT_S = 2
RETRY_PAUSE_S = 0.3

T = TypeVar("T")


def set_statement_timeout(connection: Connection, seconds: float = math.inf) -> None:
    """Let each statement of the transaction take *seconds*, whatever others of its engine may."""
    milliseconds = 0 if math.isinf(seconds) else round(seconds * 1000)
    run(connection, f"SET LOCAL statement_timeout = {milliseconds}")
    extend_timeout(connection.connection.driver_connection, seconds)


@contextmanager
def apply_lock(engine: Engine) -> Iterator[None]:
    """Hold off every other apply for the block. Raises NotPossible where one goes on for long.

    The lock is the session's, not a transaction's: what it guards takes several of those.
    """
    with engine.connect() as bare:
        connection = bare.execution_options(isolation_level="AUTOCOMMIT")
        try:
            run(connection, "SELECT pg_advisory_lock(:key)", key=APPLY_LOCK)
        except exc.OperationalError as error:
            if not isinstance(error.orig, LockNotAvailable):
                raise
            raise NotPossible("another scrapy apply is at work; wait for its end.") from error
        try:
            yield
        finally:
            run(connection, "SELECT pg_advisory_unlock(:key)", key=APPLY_LOCK)


def run_with_lock_timeout(engine: Engine, work: Callable[[Connection], T]) -> T:
    """Do *work* in a transaction that waits for locks only briefly, a few times over.

    Raises NotPossible where the locks are not to be had.
    """
    attempt = 1
    while True:
        try:
            with engine.begin() as connection:
                run(connection, f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_S}s'")
                return work(connection)
        except exc.OperationalError as error:
            if not isinstance(error.orig, LockNotAvailable | DeadlockDetected):
                raise
            if attempt == MAX_TRIES:
                raise NotPossible(
                    "others hold what has to change (a long query on a view?):"
                    f" {str(error.orig).splitlines()[0]}; nothing half done was kept, apply again."
                ) from error
        # Time for those who queued up behind us.
        time.sleep(RETRY_PAUSE_S * attempt)
        attempt += 1
