"""Dry run of pruning: the numbers of rows that it would delete."""

import datetime as dt

from sqlalchemy import Connection, Engine

from catlog_scrapy.store.maintenance.prune import PruneCounts, count_forgotten
from catlog_scrapy.store.maintenance.prune_catalogs import removable_trees
from catlog_scrapy.store.maintenance.prune_results import (
    drop_partition,
    droppable_partitions,
    longest_keep,
)
from catlog_scrapy.store.maintenance.prune_versions import count_expired_versions
from catlog_scrapy.store.maintenance.retention import DROP_GRACE, MAX_KEEP_S, Retention, seconds
from catlog_scrapy.store.sql import load_sql, one, rows, scalar


def count_prunable(engine: Engine, retention: Retention | None = None) -> PruneCounts:
    """Count what `prune` would delete, and delete nothing."""
    kept = retention or Retention()
    with engine.connect() as connection:
        now: dt.datetime = scalar(connection, "SELECT clock_timestamp()")
        longest = longest_keep(connection, kept)
        droppable = droppable_partitions(connection, longest, now)
    counts = [drop_partition(engine, each, kept, now, dry_run=True) for each in droppable]
    dropped = [
        each.bounds for each, count in zip(droppable, counts, strict=True) if count is not None
    ]
    with engine.connect() as connection:
        counted = PruneCounts(
            **one(
                connection,
                load_sql(__name__, "count_prunable"),
                now=now,
                default=kept.results,
                longest=longest,
                max_keep=MAX_KEEP_S,
                grace=DROP_GRACE.total_seconds(),
                firsts=[str(first) for first, _ in dropped],
                ends=[str(end) for _, end in dropped],
            ),
            versions=count_expired_versions(connection),
            catalogs=_count_removable(connection, kept, now),
            access=count_forgotten(connection),
        )
    counted.results += sum(filter(None, counts))
    return counted


def _count_removable(connection: Connection, retention: Retention, now: dt.datetime) -> int:
    roots = rows(
        connection,
        """SELECT id FROM catlog.catalog
           WHERE finished_at IS NOT NULL AND prune_at <= :now AND parent_id IS NULL
             AND finished_at <= :ended""",
        now=now,
        ended=now - seconds(retention.catalogs),
    )
    trees = removable_trees(connection, [root["id"] for root in roots], retention, now)
    return sum(len(tree.members) for tree in trees if tree.may_go)
