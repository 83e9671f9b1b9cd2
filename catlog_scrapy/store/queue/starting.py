"""Start of waiting catalogs: instances or sub-catalogs."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, exc

from catlog_scrapy.db.engine import reason
from catlog_scrapy.exceptions import NotPossible
from catlog_scrapy.store.batch_errors import FAULTS, is_outage, run_each
from catlog_scrapy.store.queue.catalog_states import (
    OPEN_STATES,
    LockedCatalog,
    lock_catalog,
    stop_catalog,
)
from catlog_scrapy.store.queue.catalogs import SchemeVersion, find_scheme, insert_catalog
from catlog_scrapy.store.queue.instances import (
    CannotLoad,
    InstancePlans,
    insert,
    insert_instances,
)
from catlog_scrapy.store.queue.result_partitions import require_partitions
from catlog_scrapy.store.sql import Database, row, rows, run, scalar

logger = logging.getLogger(__name__)


# Bound of one transaction: 0.1 to 0.3 s of work.
MAX_STARTS = 500

# `is_simple` says that neither the locks of parents nor records are needed to start the catalog.
READY = """
    SELECT c.id, c.parent_id IS NULL AND s.includes = '[]' AND NOT EXISTS (
        SELECT 1 FROM catlog.catalog_scheme_operation o
        WHERE o.scheme_id = s.id AND jsonb_typeof(o.for_each) = 'string') AS is_simple
    FROM catlog.catalog c
    JOIN catlog.catalog_scheme s ON s.id = c.scheme_id
    WHERE c.state = 'waiting' AND NOT EXISTS (
        SELECT 1 FROM catlog.catalog earlier
        JOIN catlog.catalog_scheme e ON e.id = earlier.scheme_id
        WHERE e.provider_id = s.provider_id AND e.name = s.after
          AND earlier.state IN ('waiting', 'loading', 'publishing')
          AND coalesce(earlier.due_at, earlier.created_at) <= coalesce(c.due_at, c.created_at))
      AND NOT EXISTS (
        SELECT 1 FROM catlog.schedule d
        WHERE d.provider_id = s.provider_id AND d.scheme_name = s.after
          AND d.enabled AND d.next_due_at <= c.due_at)
    ORDER BY c.priority DESC, c.created_at"""


def start_waiting(engine: Engine) -> int:
    """Start the waiting catalogs whose predecessors have ended, and return their number.

    The predecessors are the catalogs of the scheme in `after` that are due no later: those that are
    open, and those that are still to be made.
    """
    with engine.connect() as connection:
        ready = rows(connection, READY)
    if not ready:
        return 0
    require_partitions(engine)
    simple = [catalog["id"] for catalog in ready if catalog["is_simple"]]
    started = sum(
        _start_many(engine, simple[first : first + MAX_STARTS])
        for first in range(0, len(simple), MAX_STARTS)
    )
    others = [catalog["id"] for catalog in ready if not catalog["is_simple"]]
    return started + _start_each(engine, others)


def _start_each(engine: Engine, catalog_ids: Sequence[UUID]) -> int:
    """Start each catalog in a transaction of its own."""
    return sum(
        run_each(
            catalog_ids,
            lambda catalog_id: start(engine, catalog_id),
            lambda catalog_id, why: _fail_to_start(engine, catalog_id, why),
        )
    )


def _start_many(engine: Engine, catalog_ids: Sequence[UUID]) -> int:
    """Start simple catalogs in one transaction; after an error, start each of them alone."""
    try:
        with engine.begin() as connection:
            catalogs = LockedCatalog.select(
                connection,
                """id = ANY(CAST(:value AS uuid[])) AND state = 'waiting'
                   ORDER BY id FOR NO KEY UPDATE SKIP LOCKED""",
                [str(catalog_id) for catalog_id in catalog_ids],
            )
            _start_simple(connection, catalogs)
            return len(catalogs)
    except (exc.DBAPIError, *FAULTS) as error:
        if is_outage(error):
            raise
        logger.warning("waiting catalogs are started one by one: %s", reason(error))
    return _start_each(engine, catalog_ids)


def _start_simple(connection: Connection, catalogs: Sequence[LockedCatalog]) -> None:
    _set_loading(connection, catalogs)
    plans = InstancePlans(connection, catalogs)
    instances: list[dict[str, Any]] = []
    for catalog in catalogs:
        try:
            instances += plans.instances_of(catalog)
        except CannotLoad as error:
            stop_catalog(connection, catalog, "failed", str(error))
    if instances:
        insert(connection, instances)


def _set_loading(connection: Connection, catalogs: Sequence[LockedCatalog]) -> None:
    run(
        connection,
        """UPDATE catlog.catalog SET state = 'loading', started_at = clock_timestamp()
           WHERE id = ANY(CAST(:ids AS uuid[]))""",
        ids=[str(catalog.id) for catalog in catalogs],
    )


def _fail_to_start(engine: Engine, catalog_id: UUID, why: str) -> None:
    with engine.begin() as connection:
        catalog = lock_catalog(connection, catalog_id)
        if catalog.state == "waiting":
            stop_catalog(connection, catalog, "failed", f"it could not start: {why}")


def start(engine: Database, catalog_id: UUID) -> bool:
    """Insert a waiting catalog's instances or sub-catalogs; return False if it has started."""
    require_partitions(engine)
    with engine.begin() as connection:
        catalog = lock_catalog(connection, catalog_id)
        if catalog.state != "waiting":
            return False
        _start(connection, catalog)
    return True


def plan(
    engine: Engine,
    provider: str,
    scheme: str,
    operation: str | None,
    arguments: Mapping[str, str],
) -> list[Mapping[str, Any]]:
    """Return the instances that `create` and `start` would make: operation, part, arguments."""
    catalog_id = None
    with engine.connect() as connection, connection.begin() as transaction:
        found = find_scheme(connection, provider, scheme)
        catalog_id = insert_catalog(
            connection, found, arguments=arguments, operation=operation, origin="load"
        )
        if catalog_id is None:
            return []
        _start(connection, lock_catalog(connection, catalog_id))
        instances = rows(
            connection,
            """SELECT o.name AS operation, i.part, i.arguments
               FROM catlog.catalog_scheme_operation_instance i
               JOIN catlog.catalog_scheme_operation o ON o.id = i.operation_id
               WHERE i.catalog_id = :id ORDER BY o.name, i.part""",
            id=catalog_id,
        )
        catalog = lock_catalog(connection, catalog_id)
        if catalog.error:
            raise NotPossible(catalog.error)
        included: list[Mapping[str, Any]] = [
            {"operation": f"scheme {name}", "part": "", "arguments": dict(arguments)}
            for name in found.includes
        ]
        transaction.rollback()
    return instances or included


def fail_without_retry(engine: Engine, catalog_id: UUID) -> None:
    """Fail an open catalog after its first failed attempt, instead of retrying it."""
    with engine.begin() as connection:
        catalog = lock_catalog(connection, catalog_id)
        last = row(
            connection,
            """SELECT a.error FROM catlog.instance_attempt a
               JOIN catlog.catalog_scheme_operation_instance i ON i.id = a.instance_id
               WHERE i.catalog_id = :id AND a.outcome IN ('failed', 'incomplete', 'timed_out')
               ORDER BY a.finished_at DESC LIMIT 1""",
            id=catalog_id,
        )
        if last and catalog.state in OPEN_STATES:
            stop_catalog(connection, catalog, "failed", last["error"])


def _start(connection: Connection, catalog: LockedCatalog) -> None:
    _set_loading(connection, [catalog])
    includes = scalar(
        connection,
        "SELECT includes FROM catlog.catalog_scheme WHERE id = :id",
        id=catalog.scheme_id,
    )
    try:
        if includes:
            _include(connection, catalog, includes)
        else:
            insert_instances(connection, catalog)
    except CannotLoad as reason:
        stop_catalog(connection, catalog, "failed", str(reason))


def _include(connection: Connection, catalog: LockedCatalog, names: Sequence[str]) -> None:
    """Insert a sub-catalog of each scheme, or raise CannotLoad and insert nothing."""
    found = rows(
        connection,
        """SELECT id, provider_id, name, includes FROM catlog.catalog_scheme
           WHERE provider_id = :provider AND name = ANY(:names) AND retired_at IS NULL""",
        provider=catalog.provider_id,
        names=list(names),
    )
    present = {scheme["name"]: SchemeVersion(**scheme) for scheme in found}
    gone = [name for name in names if name not in present]
    if gone:
        raise CannotLoad(f"the included scheme {gone[0]} is retired")
    for name in names:
        insert_catalog(
            connection,
            present[name],
            arguments=catalog.arguments,
            origin="include",
            priority=catalog.priority,
            due_at=catalog.due_at,
            parent_id=catalog.id,
        )
