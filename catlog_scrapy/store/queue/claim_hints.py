"""Where the live entries of the queue's indexes begin, as far as this process knows.

While a snapshot elsewhere stays open, PostgreSQL keeps the index entries of all that has finished
since. A claim that starts at the head of the index would read every one of them, each time.
"""

import datetime as dt
import time
from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine

from catlog_scrapy.store.sql import Database, row, rows

# Seconds that finding work may take before a look at the whole queue is worth it.
SLOW_SEARCH_S = 0.05
# The share of its time that a process spends on such looks, at most.
MAX_SCAN_SHARE = 0.05

EVER = dt.datetime(1, 1, 1, tzinfo=dt.UTC)


class ClaimHints:
    """What one engine's claims remember.

    `held` says, for a provider, since when all that it runs was claimed. It is known under the
    provider's lock, under which all claims are made, so it stays true. `heads` are the positions
    at which the providers' queues begin. They come of a look at the whole queue, which is taken
    only while claims are slow, and they are believed for twenty times as long as it took: so long
    may an instance that went back into the queue, to its old place, be overlooked.
    """

    def __init__(self) -> None:
        self.held: dict[UUID, dt.datetime] = {}
        self.heads: dict[UUID, int] = {}
        self.look_at: float | None = None

    def head(self, provider: UUID) -> int:
        """No instance of the provider before this position is to be claimed."""
        return self.heads.get(provider, 0)

    def known(self) -> dict[str, Any]:
        """All of it, as values for KNOWN."""
        providers = list({**self.held, **self.heads})
        return {
            "known": [str(provider) for provider in providers],
            "heads": [self.head(provider) for provider in providers],
            "held": [self.held.get(provider, EVER) for provider in providers],
        }

    def took(self, seconds: float) -> None:
        """Finding work took so long."""
        if seconds > SLOW_SEARCH_S and self.look_at is None:
            self.look_at = time.monotonic()

    def refresh(self, connection: Connection) -> None:
        """Look at the whole queue, if it is time to."""
        if self.look_at is None or time.monotonic() < self.look_at:
            return
        started = time.monotonic()
        found = rows(connection, LOOK)
        taken = time.monotonic() - started
        if taken > SLOW_SEARCH_S:
            self.heads = {provider["id"]: provider["head"] for provider in found}
            self.look_at = started + taken / MAX_SCAN_SHARE
        else:
            self.heads, self.look_at = {}, None

    def running(self, connection: Connection, provider: UUID) -> int:
        """How many instances of the provider run. Its row must be locked."""
        found = row(
            connection,
            """SELECT count(*) AS running,
                   least(min(available_at), clock_timestamp() - interval '1 second') AS since
               FROM catlog.catalog_scheme_operation_instance
               WHERE provider_id = :provider AND node IS NOT NULL AND available_at >= :held""",
            provider=provider,
            held=self.held.get(provider, EVER),
        )
        if found is None:
            return 0
        self.held[provider] = found["since"]
        return int(found["running"])


# A queue that is empty begins behind the last position that was given.
LOOK = """
    SELECT p.id, coalesce(
        (SELECT min(i.position) FROM catlog.catalog_scheme_operation_instance i
         WHERE i.provider_id = p.id AND i.state = 'new'),
        pg_sequence_last_value(
            pg_get_serial_sequence('catlog.catalog_scheme_operation_instance', 'position')), 0
        ) AS head
    FROM catlog.provider p"""

KNOWN = """
    unnest(CAST(:known AS uuid[]), CAST(:heads AS bigint[]), CAST(:held AS timestamptz[]))
        AS known (id, head, held)"""

_hints: WeakKeyDictionary[Engine, ClaimHints] = WeakKeyDictionary()


def claim_hints_of(database: Database) -> ClaimHints:
    """What the claims of this engine's database remember."""
    engine = database if isinstance(database, Engine) else database.connection.engine
    return _hints.setdefault(engine, ClaimHints())
