"""Catalog state machine: locks, ends, and the states of parents."""

import datetime as dt
from dataclasses import dataclass, fields
from typing import Self
from uuid import UUID

from sqlalchemy import Connection

from catlog_scrapy.exceptions import NotFound
from catlog_scrapy.store.sql import clean, row, rows, run

OPEN_STATES = ("waiting", "loading", "publishing")


@dataclass(frozen=True)
class LockedCatalog:
    """A catalog whose row is locked to the end of the transaction."""

    id: UUID
    provider_id: UUID
    scheme_id: UUID
    parent_id: UUID | None
    due_at: dt.datetime | None
    as_of: dt.datetime | None
    arguments: dict[str, str]
    operation: str | None
    is_full: bool
    priority: int
    state: str
    errors: int
    first_error: str | None
    error: str | None
    purged_at: dt.datetime | None
    created_at: dt.datetime

    @classmethod
    def select(cls, connection: Connection, condition: str, value: UUID | list[str]) -> list[Self]:
        """Lock and return the catalogs for which *condition*, on `:value`, is true."""
        columns = ", ".join(column.name for column in fields(cls))
        found = rows(
            connection, f"SELECT {columns} FROM catlog.catalog WHERE {condition}", value=value
        )
        return [cls(**catalog) for catalog in found]


def lock_catalog(connection: Connection, catalog_id: UUID) -> LockedCatalog:
    """Lock a catalog, after its ancestors, and return it. Raises NotFound."""
    catalog = _lock(connection, catalog_id, "FOR NO KEY UPDATE")
    if catalog is None:
        raise NotFound(f"no catalog {catalog_id}; scrapy status lists them.")
    return catalog


def try_lock_catalog(connection: Connection, catalog_id: UUID) -> LockedCatalog | None:
    """Lock a catalog like `lock_catalog`, or return None if another session holds a lock."""
    return _lock(connection, catalog_id, "FOR NO KEY UPDATE SKIP LOCKED")


def lock_children(connection: Connection, catalog_id: UUID) -> list[LockedCatalog]:
    """Lock the sub-catalogs of a locked catalog."""
    return LockedCatalog.select(
        connection, "parent_id = :value ORDER BY id FOR NO KEY UPDATE", catalog_id
    )


def _lock(connection: Connection, catalog_id: UUID, clause: str) -> LockedCatalog | None:
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
    found: list[LockedCatalog] = []
    for ancestor in ancestors:
        found = LockedCatalog.select(connection, f"id = :value {clause}", ancestor["id"])
        if not found:
            return None
    return found[0] if found else None


def update_parent_state(connection: Connection, parent_id: UUID | None) -> None:
    """Set a locked parent's state by the states of its children, and so on upwards."""
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


def stop_catalog(connection: Connection, catalog: LockedCatalog, state: str, error: str) -> None:
    """Set a locked catalog to failed or cancelled, and cancel its open instances.

    A running instance keeps its node: the crawl goes on until its next heartbeat is told to stop.
    """
    run(
        connection,
        """UPDATE catlog.catalog SET state = :state, error = :error,
               finished_at = clock_timestamp() WHERE id = :id""",
        id=catalog.id,
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
        id=catalog.id,
    )
    update_parent_state(connection, catalog.parent_id)
