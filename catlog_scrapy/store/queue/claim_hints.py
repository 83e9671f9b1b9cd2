"""Claim hints: the positions where the live entries of the queue's indexes begin.

While another session's snapshot stays open, PostgreSQL keeps the index entries of everything that
has finished since. A claim without a hint reads all of these dead entries, each time. The page
docs/decisions/claim-hints.md has the figures.
"""

import datetime as dt
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary

import orjson
from sqlalchemy import Engine

from catlog_scrapy.store.sql import Database, rows

# Claims between two searches for the heads of the queues.
CLAIMS_PER_SEARCH = 32
# Searches until the first heads are known, unless another transaction is open.
FIRST_SEARCHES = 3
FIND_HEADS = """
    SELECT * FROM catlog.find_queue_heads(
        :executor, CAST(:tags AS jsonb), CAST(:providers AS uuid[]), CAST(:heads AS bigint[]),
        CAST(:revisions AS int[]))"""


@dataclass(frozen=True)
class Fence:
    """Position that was given out before the transaction `xid` began.

    When all transactions before `xid` have ended, no instance up to the position can appear any
    more.
    """

    position: int
    xid: int


@dataclass(frozen=True)
class QueueHead:
    """Position at which a provider's queue begins, for a worker with certain tags.

    It is true for one `revision` of the tags of the provider's operations.
    """

    position: int
    revision: int


class ClaimHints:
    """The hints of one engine's claims for an executor and a set of tags.

    `running_since` is, by provider, a lower bound of the times when its running instances were
    claimed. It is read under the provider's lock, under which all claims are made, so it stays
    true. `heads` are the positions at which the providers' queues begin, so that a claim does not
    step over the instances that wait for other workers each time. They stay true because new
    instances get higher positions, instances that return to the queue are `requeued`, and changed
    tags have another revision.
    `fence` bounds the next heads: an instance appears at the commit, after later positions.
    """

    def __init__(self, executor: str, tags: frozenset[str]) -> None:
        self.executor = executor
        self.tags_json = orjson.dumps(sorted(tags)).decode()
        self.running_since: dict[UUID, dt.datetime] = {}
        self.heads: dict[UUID, QueueHead] = {}
        self.last_position: int | None = None
        self.fence: Fence | None = None
        self.claims = 0
        self._search_lock = threading.Lock()

    def parameters(self) -> dict[str, Any]:
        """Return all hints, as parameters of catlog.claim_instances and FIND_HEADS."""
        providers = list({**self.running_since, **self.heads})
        heads = [self.heads.get(provider) for provider in providers]
        return {
            "executor": self.executor,
            "tags": self.tags_json,
            "providers": [str(provider) for provider in providers],
            "heads": [head.position if head else None for head in heads],
            "revisions": [head.revision if head else None for head in heads],
            "since": [self.running_since.get(provider) for provider in providers],
        }

    def learn(self, provider: UUID | None, running_since: dt.datetime | None) -> None:
        """Keep what a claim of *provider* found out."""
        if provider and running_since:
            self.running_since[provider] = running_since

    def refresh(self, engine: Engine) -> None:
        """Search for the heads of the queues, once in CLAIMS_PER_SEARCH calls.

        Each search is a transaction of its own: its number must be given out during the search.
        Searches of several threads exclude each other: a search that was overtaken would combine
        its old number with a later position. Claims meanwhile do with the known hints.
        """
        if not self._search_lock.acquire(blocking=False):
            return
        try:
            if self.claims % CLAIMS_PER_SEARCH == 0:
                for _ in range(1 if self.claims else FIRST_SEARCHES):
                    self._search(engine)
            self.claims += 1
        finally:
            self._search_lock.release()

    def _search(self, engine: Engine) -> None:
        with engine.connect() as connection:
            found = rows(connection, FIND_HEADS, **self.parameters())
        if not found:
            return
        if self.fence and self.fence.xid <= found[0]["oldest_xid"]:
            passed = self.fence.position + 1
            self.heads = {
                queue["provider"]: QueueHead(
                    passed if queue["head"] is None else min(passed, queue["head"]),
                    queue["revision"],
                )
                for queue in found
            }
            self.fence = None
        if self.fence is None and self.last_position is not None:
            # The former search read the position before this search's transaction got its number.
            # An instance's transaction locks its catalog, hence has a number, before the position.
            self.fence = Fence(self.last_position, found[0]["own_xid"])
        self.last_position = found[0]["last_position"]


_hints: WeakKeyDictionary[Engine, dict[tuple[str, frozenset[str]], ClaimHints]] = (
    WeakKeyDictionary()
)


def claim_hints_of(
    database: Database, executor: str = "scrapy", tags: Iterable[str] = ()
) -> ClaimHints:
    """Return the hints of the claims by this engine for *executor* and *tags*."""
    engine = database if isinstance(database, Engine) else database.connection.engine
    key = executor, frozenset(tags)
    hints = _hints.setdefault(engine, {})
    if key not in hints:
        hints[key] = ClaimHints(*key)
    return hints[key]
