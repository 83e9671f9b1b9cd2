"""Catalog state machine: locks, parents, ends."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from catlog_scrapy.exceptions import NotFound
from catlog_scrapy.store.sql import clean, row, rows, run

OPEN_STATES = ("waiting", "loading", "publishing")


def lock_catalog(connection: Connection, catalog_id: UUID) -> Mapping[str, Any]:
    """Lock a catalog, its ancestors first, and return it as it then is. Raises NotFound."""
    catalog = _lock(connection, catalog_id, "FOR NO KEY UPDATE")
    if catalog is None:
        raise NotFound(f"no catalog {catalog_id}; scrapy status lists them.")
    return catalog


def try_lock_catalog(connection: Connection, catalog_id: UUID) -> Mapping[str, Any] | None:
    """The same, but None where somebody else holds one of the locks."""
    return _lock(connection, catalog_id, "FOR NO KEY UPDATE SKIP LOCKED")


def _lock(connection: Connection, catalog_id: UUID, clause: str) -> Mapping[str, Any] | None:
    ancestors = rows(
        connection,
        """WITH RECURSIVE up AS (
               SELECT id, parent_id, 0 AS depth FROM catlog.catalog WHERE id = :id
               UNION ALL
               SELECT c.id, c.parent_id, up.depth + 1
               FROM catlog.catalog c JOIN up ON c.id = up.parent_id)
           SELECT id FROM up ORDER BY depth DESC""",
        id=catalog_id,
    )
    found: Mapping[str, Any] | None = None
    for ancestor in ancestors:
        found = row(
            connection,
            f"SELECT * FROM catlog.catalog WHERE id = :id {clause}",
            id=ancestor["id"],
        )
        if found is None:
            return None
    return found


def update_parent_state(connection: Connection, parent_id: UUID | None) -> None:
    """Let a locked parent's state follow its children, and so on upwards."""
    while parent_id is not None:
        parent = row(
            connection,
            """UPDATE catlog.catalog p SET
                   state = now.state,
                   error = CASE WHEN now.state = 'failed' THEN 'a sub-catalog did not load' END,
                   finished_at = CASE WHEN now.state <> 'loading' THEN clock_timestamp() END
               FROM (SELECT CASE
                         WHEN bool_or(state IN ('waiting', 'loading', 'publishing')) THEN 'loading'
                         WHEN bool_and(state = 'loaded') THEN 'loaded'
                         ELSE 'failed' END AS state
                     FROM catlog.catalog WHERE parent_id = :id) AS now
               WHERE p.id = :id AND p.state IN ('loading', 'failed', 'loaded', 'cancelled')
               RETURNING p.parent_id""",
            id=parent_id,
        )
        parent_id = parent["parent_id"] if parent else None


def stop_catalog(
    connection: Connection, catalog: Mapping[str, Any], state: str, error: str
) -> None:
    """End a locked catalog as failed or cancelled, and with it what has not ended of it.

    A running instance keeps its node: the crawl goes on until its next heartbeat says stop.
    """
    run(
        connection,
        """UPDATE catlog.catalog SET state = :state, error = :error,
               finished_at = clock_timestamp() WHERE id = :id""",
        id=catalog["id"],
        state=state,
        error=clean(error),
    )
    run(
        connection,
        """UPDATE catlog.catalog_scheme_operation_instance i SET state = 'cancelled'
           FROM (SELECT id FROM catlog.catalog_scheme_operation_instance
                 WHERE catalog_id = :id AND state IN ('new', 'running')
                 ORDER BY id FOR NO KEY UPDATE) AS open
           WHERE i.id = open.id""",
        id=catalog["id"],
    )
    update_parent_state(connection, catalog["parent_id"])
