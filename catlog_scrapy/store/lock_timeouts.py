"""Lock and statement timeouts, above all for DDL that blocks readers."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from psycopg2.errors import DeadlockDetected, LockNotAvailable
from sqlalchemy import Connection, Engine, exc

from catlog_scrapy.db.watchdog import extend_timeout
from catlog_scrapy.exceptions import NotPossible
from catlog_scrapy.store.sql import run, scalar

# Any number that no other advisory lock in this database has.
APPLY_LOCK = 4_226_003
APPLY_LOCK_TIMEOUT_S = 30.0
APPLY_LOCK_POLL_S = 0.2
MAX_TRIES = 5
# Readers queue behind a waiting ACCESS EXCLUSIVE lock, so they wait as long as this.
LOCK_TIMEOUT_S = 2
RETRY_PAUSE_S = 0.3

T = TypeVar("T")


def set_statement_timeout(connection: Connection, seconds: float = math.inf) -> None:
    """Set the timeout of the transaction's statements, in place of the engine's."""
    milliseconds = 0 if math.isinf(seconds) else round(seconds * 1000)
    run(connection, f"SET LOCAL statement_timeout = {milliseconds}")
    extend_timeout(connection.connection.driver_connection, seconds)


@contextmanager
def apply_lock(engine: Engine) -> Iterator[None]:
    """Keep every other apply out of the block. Raises NotPossible if one runs for long.

    The block takes several transactions, and the lock belongs to one more beside them. A session
    lock would stay with a server connection of PgBouncer. A statement that waits for the lock would
    keep its snapshot, for which the other apply waits when it builds an index.
    """
    deadline = time.monotonic() + APPLY_LOCK_TIMEOUT_S
    with engine.connect() as connection:
        while not scalar(connection, "SELECT pg_try_advisory_xact_lock(:key)", key=APPLY_LOCK):
            connection.rollback()
            if time.monotonic() > deadline:
                raise NotPossible("another scrapy apply is running; wait until it has ended.")
            time.sleep(APPLY_LOCK_POLL_S)
        run(connection, "SET LOCAL idle_in_transaction_session_timeout = 0")
        yield


def run_with_lock_timeout(engine: Engine, work: Callable[[Connection], T]) -> T:
    """Run *work* in a transaction with a short lock timeout, and retry it a few times.

    Raises NotPossible if other sessions still hold the locks then.
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
                    "other sessions lock what has to change (a long query on a view?):"
                    f" {str(error.orig).splitlines()[0]}; nothing was changed, run apply again."
                ) from error
        # Let the readers through that queued behind the lock.
        time.sleep(RETRY_PAUSE_S * attempt)
        attempt += 1
