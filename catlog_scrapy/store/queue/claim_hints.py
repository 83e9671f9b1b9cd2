"""Claim hints: the positions where the live entries of the queue's indexes begin.

While another session's snapshot stays open, PostgreSQL keeps the index entries of everything that
has finished since. A claim without a hint reads all of these dead entries, each time. The page
docs/decisions/claim-hints.md has the figures.
"""

import datetime as dt
import time
from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine

from catlog_scrapy.store.sql import Database, one, rows

# A search for work that takes longer is slow enough for a scan of the whole queue to pay.
SLOW_SEARCH_S = 0.05
# The share of its time that a process spends on such scans, at most.
MAX_SCAN_SHARE = 0.05

LONG_AGO = dt.datetime(1, 1, 1, tzinfo=dt.UTC)


class ClaimHints:
    """The hints of one engine's claims.

    `running_since` is, by provider, a lower bound of the times when its running instances were
    claimed. It is read under the provider's lock, under which all claims are made, so it stays
    true. `heads` are the positions at which the providers' queues begin. They come from a scan of
    the whole queue, which runs only while claims are slow. They stay valid for twenty times as long
    as the scan took: for so long, claims may miss an instance that went back to its old position.
    """

    def __init__(self) -> None:
        self.running_since: dict[UUID, dt.datetime] = {}
        self.heads: dict[UUID, int] = {}
        self.next_scan_at: float | None = None

    def head(self, provider: UUID) -> int:
        """Return the position at which the provider's queue begins."""
        return self.heads.get(provider, 0)

    def known(self) -> dict[str, Any]:
        """Return all hints, as parameters of HINTS_TABLE."""
        providers = list({**self.running_since, **self.heads})
        return {
            "known": [str(provider) for provider in providers],
            "heads": [self.head(provider) for provider in providers],
            "since": [self.running_since.get(provider, LONG_AGO) for provider in providers],
        }

    def took(self, seconds: float) -> None:
        """Note how long a search for work took."""
        if seconds > SLOW_SEARCH_S and self.next_scan_at is None:
            self.next_scan_at = time.monotonic()

    def refresh(self, connection: Connection) -> None:
        """Scan the whole queue, if a scan is due."""
        if self.next_scan_at is None or time.monotonic() < self.next_scan_at:
            return
        started = time.monotonic()
        found = rows(connection, FIND_HEADS)
        taken = time.monotonic() - started
        if taken > SLOW_SEARCH_S:
            self.heads = {provider["id"]: provider["head"] for provider in found}
            self.next_scan_at = started + taken / MAX_SCAN_SHARE
        else:
            self.heads, self.next_scan_at = {}, None

    def running(self, connection: Connection, provider: UUID) -> int:
        """Count the running instances of a provider, whose row must be locked."""
        found = one(
            connection,
            """SELECT count(*) AS running,
                   least(min(available_at), clock_timestamp() - interval '1 second') AS since
               FROM catlog.catalog_scheme_operation_instance
               WHERE provider_id = :provider AND node IS NOT NULL AND available_at >= :since""",
            provider=provider,
            since=self.running_since.get(provider, LONG_AGO),
        )
        self.running_since[provider] = found["since"]
        return int(found["running"])


# An empty queue begins behind the last position that was given out.
FIND_HEADS = """
    SELECT p.id, coalesce(
        (SELECT min(i.position) FROM catlog.catalog_scheme_operation_instance i
         WHERE i.provider_id = p.id AND i.state = 'new'),
        pg_sequence_last_value(
            pg_get_serial_sequence('catlog.catalog_scheme_operation_instance', 'position')), 0
        ) AS head
    FROM catlog.provider p"""

HINTS_TABLE = """
    unnest(CAST(:known AS uuid[]), CAST(:heads AS bigint[]), CAST(:since AS timestamptz[]))
        AS known (id, head, running_since)"""

_hints: WeakKeyDictionary[Engine, ClaimHints] = WeakKeyDictionary()


def claim_hints_of(database: Database) -> ClaimHints:
    """Return the hints of the claims by this engine."""
    engine = database if isinstance(database, Engine) else database.connection.engine
    return _hints.setdefault(engine, ClaimHints())
