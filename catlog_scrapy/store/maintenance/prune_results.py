"""Pruning of results and rejected items: partitions are dropped, other rows deleted in batches."""

import datetime as dt
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, exc

from catlog_scrapy.db.engine import reason
from catlog_scrapy.store.batch_errors import is_outage
from catlog_scrapy.store.maintenance.retention import (
    DROP_GRACE,
    MAX_KEEP_S,
    MAX_PAUSE,
    NO_TIME,
    Retention,
    seconds,
)
from catlog_scrapy.store.queue.result_partitions import (
    LOCK_TIMEOUT_MS,
    ResultPartition,
    partitions,
)
from catlog_scrapy.store.queue.results import delete_results, purge_unfinished_attempts
from catlog_scrapy.store.sql import row, rows, run, scalar

logger = logging.getLogger(__name__)

# Bounds of one transaction: 0.1 to 0.3 s of work.
MAX_CATALOGS, MAX_ROWS = 200, 20_000


@dataclass(frozen=True)
class EndedCatalog:
    """An ended catalog whose row is locked, so that it cannot be retried meanwhile."""

    id: UUID
    state: str
    parent_id: UUID | None
    started_at: dt.datetime | None
    finished_at: dt.datetime


@dataclass(frozen=True)
class Expiry:
    """Time at which the results of a catalog's operation expire. A held slot is still in use."""

    operation: UUID
    keep: float
    at: dt.datetime
    is_held: bool


@dataclass
class PrunedBatch:
    """Ended catalogs that pruning looks at, and the outcome.

    `is_complete` is false if rows are left for the next batch. `removable` are the catalogs that
    may be removed as well.
    """

    catalogs: list[EndedCatalog]
    results: int = 0
    rejected: int = 0
    unfinished: int = 0
    is_complete: bool = True
    removable: tuple[UUID, ...] = ()


def longest_keep(connection: Connection, retention: Retention) -> float:
    """Return the longest `keep` of the operations that have ended catalogs."""
    return float(
        scalar(
            connection,
            """SELECT coalesce(max(coalesce(o.keep, :default)), :default)
               FROM catlog.catalog_scheme_operation o WHERE EXISTS (
                   SELECT 1 FROM catlog.catalog c
                   WHERE c.scheme_id = o.scheme_id AND c.finished_at IS NOT NULL)""",
            default=retention.results,
        )
    )


def prune_batch(
    connection: Connection, retention: Retention, longest: float, now: dt.datetime
) -> PrunedBatch:
    """Prune the results of the next ended catalogs that are due for it before *now*.

    A catalog that has lost rows cannot be retried. Locked catalogs are left for the next round.
    """
    found = rows(
        connection,
        """SELECT id, state, parent_id, started_at, finished_at FROM catlog.catalog
           WHERE finished_at IS NOT NULL AND prune_at <= :now
           ORDER BY prune_at LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED""",
        now=now,
        limit=MAX_CATALOGS,
    )
    batch = PrunedBatch([EndedCatalog(**catalog) for catalog in found])
    if not batch.catalogs:
        return batch
    expiries = _expiries(connection, batch.catalogs, retention, longest, now)
    ended = [c.id for c in batch.catalogs if c.state != "skipped"]
    batch.unfinished = purge_unfinished_attempts(connection, ended, limit=MAX_ROWS)
    _delete_expired(connection, batch, expiries, now)
    batch.is_complete = max(batch.unfinished, batch.results) < MAX_ROWS
    if batch.is_complete:
        _set_next_looks(connection, batch, expiries, retention, now)
    return batch


def _expiries(
    connection: Connection,
    catalogs: Sequence[EndedCatalog],
    retention: Retention,
    longest: float,
    now: dt.datetime,
) -> dict[UUID, list[Expiry]]:
    """Return the expiries of each catalog's operations.

    The results with the longest `keep` go with their partition, unless that is still in use.
    """
    found = rows(
        connection,
        """SELECT i.catalog_id, i.operation_id, coalesce(o.keep, :default) AS keep,
               bool_or(i.node IS NOT NULL) AS is_held
           FROM catlog.catalog_scheme_operation_instance i
           JOIN catlog.catalog_scheme_operation o ON o.id = i.operation_id
           WHERE i.catalog_id = ANY(CAST(:ids AS uuid[])) GROUP BY 1, 2, 3""",
        default=retention.results,
        ids=[str(catalog.id) for catalog in catalogs],
    )
    of_catalog: dict[UUID, list[Mapping[str, Any]]] = {}
    for operation in found:
        of_catalog.setdefault(operation["catalog_id"], []).append(operation)
    today = now.astimezone(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    expiries: dict[UUID, list[Expiry]] = {}
    for catalog in catalogs:
        is_old = catalog.started_at is not None and catalog.started_at < today
        expiries[catalog.id] = [
            Expiry(
                operation["operation_id"],
                operation["keep"],
                catalog.finished_at
                + seconds(operation["keep"])
                + (DROP_GRACE if operation["keep"] >= longest and is_old else NO_TIME),
                operation["is_held"],
            )
            for operation in of_catalog.get(catalog.id, ())
        ]
    return expiries


def _delete_expired(
    connection: Connection,
    batch: PrunedBatch,
    expiries: Mapping[UUID, Sequence[Expiry]],
    now: dt.datetime,
) -> None:
    """Delete the expired rows, at most MAX_ROWS results, and mark their catalogs as purged."""
    expired = [
        (str(catalog), str(expiry.operation))
        for catalog, listed in expiries.items()
        for expiry in listed
        if expiry.at <= now
    ]
    if not expired:
        return
    found = rows(
        connection,
        """SELECT i.id, i.catalog_id FROM catlog.catalog_scheme_operation_instance i
           JOIN unnest(CAST(:catalogs AS uuid[]), CAST(:operations AS uuid[]))
               AS g (catalog, operation)
               ON i.catalog_id = g.catalog AND i.operation_id = g.operation""",
        catalogs=[catalog for catalog, _ in expired],
        operations=[operation for _, operation in expired],
    )
    catalog_of = {instance["id"]: instance["catalog_id"] for instance in found}
    results = delete_results(connection, list(catalog_of), limit=MAX_ROWS)
    rejected = rows(
        connection,
        """WITH gone AS (
               DELETE FROM catlog.rejected_result WHERE instance_id = ANY(CAST(:ids AS uuid[]))
               RETURNING instance_id)
           SELECT instance_id, count(*) AS rows FROM gone GROUP BY 1""",
        ids=[str(instance) for instance in catalog_of],
    )
    batch.results = sum(results.values())
    batch.rejected = sum(instance["rows"] for instance in rejected)
    emptied = [*results, *(instance["instance_id"] for instance in rejected)]
    mark_purged(connection, {catalog_of[instance] for instance in emptied})


def mark_purged(connection: Connection, catalogs: Collection[UUID]) -> None:
    """Mark locked *catalogs* as purged: they cannot be retried."""
    if catalogs:
        run(
            connection,
            """UPDATE catlog.catalog SET purged_at = clock_timestamp()
               WHERE id = ANY(CAST(:ids AS uuid[])) AND purged_at IS NULL""",
            ids=[str(catalog) for catalog in catalogs],
        )


def _set_next_looks(
    connection: Connection,
    batch: PrunedBatch,
    expiries: Mapping[UUID, Sequence[Expiry]],
    retention: Retention,
    now: dt.datetime,
) -> None:
    """Set when pruning looks at the catalogs next, and collect the removable catalogs."""
    looks: dict[str, dt.datetime] = {}
    removable = []
    for catalog in batch.catalogs:
        listed = expiries[catalog.id]
        due = [expiry.at for expiry in listed if expiry.at > now]
        removal = catalog.finished_at + seconds(retention.catalogs)
        if any(expiry.is_held for expiry in listed):
            looks[str(catalog.id)] = now + dt.timedelta(microseconds=1)  # in the next round
        elif not due and removal <= now and catalog.parent_id is None:
            removable.append(catalog.id)
        else:
            following = min(due) if due else removal
            looks[str(catalog.id)] = (
                min(following, now + MAX_PAUSE) if following > now else now + MAX_PAUSE
            )
    batch.removable = tuple(removable)
    set_next_look(connection, looks)


def set_next_look(connection: Connection, looks: Mapping[str, dt.datetime]) -> None:
    """Set the times at which pruning looks at locked catalogs next."""
    if looks:
        run(
            connection,
            """UPDATE catlog.catalog c SET prune_at = g.at
               FROM unnest(CAST(:ids AS uuid[]), CAST(:times AS timestamptz[])) AS g (id, at)
               WHERE c.id = g.id""",
            ids=list(looks),
            times=list(looks.values()),
        )


def droppable_partitions(
    connection: Connection, longest: float, now: dt.datetime
) -> list[ResultPartition]:
    """Return the partitions whose instances are all older than the longest `keep`."""
    return [found for found in partitions(connection) if found.end + seconds(longest) <= now]


# An instance of the partition whose results must stay.
IS_NEEDED = """
    SELECT 1 FROM catlog.catalog_scheme_operation_instance i
    JOIN catlog.catalog_scheme_operation o ON o.id = i.operation_id
    JOIN catlog.catalog c ON c.id = i.catalog_id
    WHERE i.id >= :first AND i.id < :end AND (
        c.finished_at IS NULL OR i.node IS NOT NULL
        OR c.finished_at + make_interval(secs => least(coalesce(o.keep, :default), :max_keep))
            > :now)"""

RETRIABLE = """
    SELECT c.id FROM catlog.catalog c
    WHERE c.state IN ('failed', 'cancelled') AND c.purged_at IS NULL AND c.id IN (
        SELECT i.catalog_id FROM catlog.catalog_scheme_operation_instance i
        WHERE i.id >= :first AND i.id < :end)"""

# Promise: a done attempt has as many rows as its worker accepted.
COUNT_DONE = """
    SELECT coalesce(sum(a.accepted), 0)::bigint
    FROM catlog.catalog_scheme_operation_instance i
    JOIN catlog.instance_attempt a ON a.instance_id = i.id AND a.attempt = i.attempt
    WHERE i.id >= :first AND i.id < :end AND a.outcome = 'done'"""


def drop_partition(
    engine: Engine,
    partition: ResultPartition,
    retention: Retention,
    now: dt.datetime,
    *,
    dry_run: bool = False,
) -> int | None:
    """Drop *partition* if no catalog needs its rows, and return their number.

    Returns None if a catalog needs them, or if other sessions hold locks now. With *dry_run* the
    partition stays.
    """
    first, end = partition.bounds
    values = {"first": first, "end": end, "now": now, "default": retention.results}
    values["max_keep"] = MAX_KEEP_S
    try:
        with engine.begin() as connection:
            if row(connection, f"{IS_NEEDED} LIMIT 1", **values):
                return None
            dropped = int(scalar(connection, COUNT_DONE, **values))
            if not dry_run:
                retriable = rows(connection, RETRIABLE, **values)
                locked = rows(
                    connection, f"{RETRIABLE} FOR NO KEY UPDATE OF c SKIP LOCKED", **values
                )
                if len(locked) < len(retriable):
                    return None
                # A catalog may have been retried before its row was locked.
                if row(connection, f"{IS_NEEDED} LIMIT 1", **values):
                    return None
                mark_purged(connection, [catalog["id"] for catalog in locked])
                run(connection, f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")
                run(connection, f"DROP TABLE catlog.{partition.name}")
    except exc.DBAPIError as error:
        if is_outage(error):
            raise
        logger.info("the results of %s are not dropped yet: %s", partition.day, reason(error))
        return None
    return dropped
