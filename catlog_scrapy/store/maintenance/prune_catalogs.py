"""Pruning of ended catalogs, with their instances and attempts; a summary stays."""

import datetime as dt
from collections.abc import Collection
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from catlog_scrapy.store.maintenance.prune_results import MAX_ROWS, set_next_look
from catlog_scrapy.store.maintenance.retention import (
    DAY,
    LATEST_CATALOGS,
    MAX_KEEP_S,
    Retention,
)
from catlog_scrapy.store.queue.results import delete_results
from catlog_scrapy.store.sql import load_sql, rows, run


class RemovableTree(NamedTuple):
    """A catalog with its sub-catalogs; `may_go` says that all of them may be removed."""

    root: UUID
    members: list[UUID]
    instances: int
    may_go: bool


def removable_trees(
    connection: Connection, roots: Collection[UUID], retention: Retention, now: dt.datetime
) -> list[RemovableTree]:
    """Return the trees of catalogs under *roots*."""
    found = rows(
        connection,
        load_sql(__name__, "removable_catalogs"),
        roots=[str(root) for root in roots],
        now=now,
        keep=retention.catalogs,
        default=retention.results,
        max_keep=MAX_KEEP_S,
        latest=LATEST_CATALOGS,
    )
    return [RemovableTree(**tree) for tree in found]


def remove_catalogs(
    connection: Connection, roots: Collection[UUID], retention: Retention, now: dt.datetime
) -> int:
    """Remove locked *roots* with their sub-catalogs where possible; return the number of catalogs.

    The others are looked at again a day later, and those beyond MAX_ROWS instances in the next
    batch.
    """
    removed: list[UUID] = []
    staying: list[UUID] = []
    instances = 0
    for tree in removable_trees(connection, roots, retention, now):
        if not tree.may_go or not _lock(connection, tree.members):
            staying.append(tree.root)
        elif instances < MAX_ROWS:
            instances += tree.instances
            removed += tree.members
    set_next_look(connection, {str(root): now + DAY for root in staying})
    if removed:
        _remove(connection, removed)
    return len(removed)


def _lock(connection: Connection, members: Collection[UUID]) -> bool:
    """Lock the catalogs of a tree; return False if one of them is open or locked."""
    if len(members) == 1:  # the root, which is locked
        return True
    found = rows(
        connection,
        """SELECT 1 FROM catlog.catalog
           WHERE id = ANY(CAST(:ids AS uuid[])) AND finished_at IS NOT NULL
           FOR NO KEY UPDATE SKIP LOCKED""",
        ids=[str(member) for member in members],
    )
    return len(found) == len(members)


def _remove(connection: Connection, catalogs: Collection[UUID]) -> None:
    ids = [str(catalog) for catalog in catalogs]
    run(connection, load_sql(__name__, "summarize_catalogs"), ids=ids)
    run(
        connection,
        """INSERT INTO catlog.pruned_due_time AS p (schedule_id, day, times)
           SELECT schedule_id, CAST(due_at AT TIME ZONE 'UTC' AS date), array_agg(due_at)
           FROM catlog.catalog
           WHERE id = ANY(CAST(:ids AS uuid[])) AND schedule_id IS NOT NULL
             AND due_at IS NOT NULL AND state <> 'skipped'
           GROUP BY 1, 2
           ON CONFLICT (schedule_id, day) DO UPDATE SET times = p.times || excluded.times""",
        ids=ids,
    )
    found = rows(
        connection,
        """SELECT id FROM catlog.catalog_scheme_operation_instance
           WHERE catalog_id = ANY(CAST(:ids AS uuid[]))""",
        ids=ids,
    )
    instances = [instance["id"] for instance in found]
    # Rows that came late, after the results had expired.
    delete_results(connection, instances)
    for table in ("rejected_result", "result_batch", "instance_attempt"):
        run(
            connection,
            f"DELETE FROM catlog.{table} WHERE instance_id = ANY(CAST(:ids AS uuid[]))",
            ids=[str(instance) for instance in instances],
        )
    run(
        connection,
        """DELETE FROM catlog.catalog_scheme_operation_instance
           WHERE catalog_id = ANY(CAST(:ids AS uuid[]))""",
        ids=ids,
    )
    run(connection, "DELETE FROM catlog.catalog WHERE id = ANY(CAST(:ids AS uuid[]))", ids=ids)
