"""Pruning: deletion of old results, versions, catalogs, and traces of access."""

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection, Engine

from catlog_scrapy.store.access.idempotency import KEEP_RESPONSES_S
from catlog_scrapy.store.access.logins import FORGET_FAILURES_AFTER_S
from catlog_scrapy.store.maintenance.prune_catalogs import remove_catalogs
from catlog_scrapy.store.maintenance.prune_results import (
    MAX_ROWS,
    drop_partition,
    droppable_partitions,
    longest_keep,
    prune_batch,
)
from catlog_scrapy.store.maintenance.prune_versions import delete_expired_versions
from catlog_scrapy.store.maintenance.retention import Retention, seconds
from catlog_scrapy.store.queue.result_partitions import first_id
from catlog_scrapy.store.queue.results import purge_batch_log, purge_orphans
from catlog_scrapy.store.sql import run, scalar


@dataclass
class PruneCounts:
    """Numbers of rows that were, or would be, deleted."""

    results: int = 0
    rejected: int = 0
    versions: int = 0
    unfinished: int = 0
    catalogs: int = 0
    access: int = 0


def prune(engine: Engine, retention: Retention | None = None) -> PruneCounts:
    """Delete what is older than its time, at once; see `prune_in_steps`."""
    pruned = PruneCounts()
    for _ in prune_in_steps(engine, retention or Retention(), pruned):
        pass
    return pruned


def prune_in_steps(engine: Engine, retention: Retention, pruned: PruneCounts) -> Iterator[None]:
    """Delete what is older than its time, and yield after each short transaction.

    These are results and rejected items older than their operation's `keep`, results of attempts
    that are not done, versions, ended catalogs, expired tokens, stored replies, and old login
    failures. A catalog that has lost results or rejected items cannot be retried. Adds to *pruned*.
    """
    with engine.connect() as connection:
        now: dt.datetime = scalar(connection, "SELECT clock_timestamp()")
        longest = longest_keep(connection, retention)
        droppable = droppable_partitions(connection, longest, now)
    for partition in droppable:
        pruned.results += drop_partition(engine, partition, retention, now) or 0
        yield
    more = True
    while more:
        more = _prune_catalogs(engine, retention, longest, now, pruned)
        yield
    before = first_id(now - seconds(retention.catalogs))
    for deleted in _repeat(engine, partial(purge_orphans, before=before)):
        pruned.unfinished += deleted
        yield
    for deleted in _repeat(engine, delete_expired_versions):
        pruned.versions += deleted
        yield
    with engine.begin() as connection:
        pruned.unfinished += purge_batch_log(connection)
        pruned.access = _forget(connection)
    yield


def _prune_catalogs(
    engine: Engine, retention: Retention, longest: float, now: dt.datetime, pruned: PruneCounts
) -> bool:
    """Prune a batch of catalogs in one transaction; return whether there may be more."""
    with engine.begin() as connection:
        batch = prune_batch(connection, retention, longest, now)
        removed = remove_catalogs(connection, batch.removable, retention, now)
    pruned.results += batch.results
    pruned.rejected += batch.rejected
    pruned.unfinished += batch.unfinished
    pruned.catalogs += removed
    return bool(batch.catalogs)


def _repeat(engine: Engine, delete: Callable[..., int]) -> Iterator[int]:
    """Call *delete*, each time in a transaction, until it deletes fewer than MAX_ROWS rows."""
    deleted = MAX_ROWS
    while deleted >= MAX_ROWS:
        with engine.begin() as connection:
            deleted = delete(connection, limit=MAX_ROWS)
        yield deleted


FORGET = {
    "idempotent_request": f"created_at < now() - interval '{KEEP_RESPONSES_S} s'",
    "refresh_token": "expires_at < now()",
    "login_failure": f"last_at < now() - interval '{FORGET_FAILURES_AFTER_S} s'",
}


def _forget(connection: Connection) -> int:
    """Delete expired replies of idempotent requests, expired tokens, and old login failures."""
    return sum(
        run(connection, f"DELETE FROM catlog.{table} WHERE {is_old}")
        for table, is_old in FORGET.items()
    )


def count_forgotten(connection: Connection) -> int:
    """Count the rows that `prune` would delete for access."""
    return sum(
        int(scalar(connection, f"SELECT count(*) FROM catlog.{table} WHERE {is_old}"))
        for table, is_old in FORGET.items()
    )
