"""Life cycle of catalogs: create, cancel, retry."""

import datetime as dt
from collections.abc import Mapping
from typing import NamedTuple
from uuid import UUID

import orjson
from sqlalchemy import Connection

from catlog_scrapy.exceptions import NotFound, NotPossible
from catlog_scrapy.store.queue.arguments import check_arguments, refuse_secrets
from catlog_scrapy.store.queue.catalog_states import (
    OPEN_STATES,
    LockedCatalog,
    lock_catalog,
    lock_children,
    stop_catalog,
    update_parent_state,
)
from catlog_scrapy.store.queue.instances import DUE_AT_PLACEHOLDER
from catlog_scrapy.store.sql import Database, row, rows, run


class SchemeVersion(NamedTuple):
    """The current version of a scheme."""

    id: UUID
    provider_id: UUID
    name: str
    includes: list[str]


def create(
    engine: Database,
    provider: str,
    scheme: str,
    *,
    operation: str | None = None,
    arguments: Mapping[str, str] | None = None,
    origin: str = "load",
    priority: int = 0,
) -> UUID:
    """Create a catalog of the scheme's current version, in the state `waiting`, and return its id.

    With an *operation* or *arguments* the load is partial: it does not remove records. Raises
    NotFound, and NotPossible for invalid arguments.
    """
    with engine.begin() as connection:
        found = find_scheme(connection, provider, scheme)
        check_arguments(connection, found.provider_id, arguments or {})
        if operation and not row(
            connection,
            """SELECT 1 FROM catlog.catalog_scheme_operation
               WHERE scheme_id = :scheme AND name = :name""",
            scheme=found.id,
            name=operation,
        ):
            names = rows(
                connection,
                "SELECT name FROM catlog.catalog_scheme_operation WHERE scheme_id = :scheme",
                scheme=found.id,
            )
            known = ", ".join(name["name"] for name in names) or "none"
            raise NotFound(f"{provider}/{scheme} has no operation {operation!r}; it has {known}.")
        made = insert_catalog(
            connection,
            found,
            arguments=arguments or {},
            operation=operation,
            origin=origin,
            priority=priority,
        )
    if made is None:
        raise NotPossible(f"{provider}/{scheme} already has a catalog for this due time.")
    return made


def find_scheme(connection: Connection, provider: str, scheme: str) -> SchemeVersion:
    """Return the current version of a scheme. Raises NotFound, with the names that exist."""
    found = row(
        connection,
        """SELECT s.id, s.provider_id, s.name, s.includes FROM catlog.catalog_scheme s
           JOIN catlog.provider p ON p.id = s.provider_id
           WHERE p.name = :provider AND s.name = :scheme AND s.retired_at IS NULL""",
        provider=provider,
        scheme=scheme,
    )
    if found:
        return SchemeVersion(**found)
    names = rows(
        connection,
        """SELECT p.name || '/' || s.name AS name FROM catlog.catalog_scheme s
           JOIN catlog.provider p ON p.id = s.provider_id
           WHERE s.retired_at IS NULL ORDER BY 1""",
    )
    known = ", ".join(name["name"] for name in names) or "none yet; run scrapy apply"
    raise NotFound(
        f"no scheme {provider}/{scheme}; there are: {known}. A new one needs scrapy apply."
    )


def insert_catalog(
    connection: Connection,
    scheme: SchemeVersion,
    *,
    arguments: Mapping[str, str],
    operation: str | None = None,
    origin: str,
    priority: int = 0,
    schedule_id: UUID | None = None,
    due_at: dt.datetime | None = None,
    parent_id: UUID | None = None,
    state: str = "waiting",
    error: str | None = None,
    job: str | None = None,
    settings: Mapping[str, str] | None = None,
    project_version: str | None = None,
) -> UUID | None:
    """Insert a catalog; return None if its schedule already has a catalog for this due time.

    A load with an operation, an argument or a setting counts as partial: a setting may leave
    records out as well. Raises NotPossible if an argument is a secret of the provider.
    """
    refuse_secrets(connection, scheme.provider_id, arguments)
    speaks_for_due = due_at is not None and uses_due_at(connection, scheme.id, arguments)
    found = row(
        connection,
        """INSERT INTO catlog.catalog (provider_id, scheme_id, parent_id, schedule_id, due_at,
               as_of, arguments, operation, is_full, origin, priority, state, error, job, settings,
               project_version, finished_at)
           SELECT :provider, :scheme, :parent, :schedule, CAST(:due_at AS timestamptz),
               CAST(:as_of AS timestamptz), CAST(:arguments AS jsonb), :operation, :is_full,
               :origin, :priority, :state, :error, :job, CAST(:settings AS jsonb),
               :project_version, CASE WHEN :state = 'skipped' THEN clock_timestamp() END
           WHERE NOT EXISTS (
               SELECT 1 FROM catlog.pruned_due_time u
               WHERE u.schedule_id = CAST(:schedule AS uuid) AND :due_at = ANY(u.times)
                 AND u.day = CAST(CAST(:due_at AS timestamptz) AT TIME ZONE 'UTC' AS date))
           ON CONFLICT (schedule_id, due_at) DO NOTHING RETURNING id""",
        provider=scheme.provider_id,
        scheme=scheme.id,
        parent=parent_id,
        schedule=schedule_id,
        due_at=due_at,
        as_of=due_at if speaks_for_due else None,
        arguments=orjson.dumps(dict(arguments)).decode(),
        operation=operation,
        is_full=operation is None and not arguments and not settings,
        job=job,
        settings=orjson.dumps(dict(settings or {})).decode(),
        project_version=project_version,
        origin=origin,
        priority=priority,
        state=state,
        error=error,
    )
    return found["id"] if found else None


def uses_due_at(
    connection: Connection, scheme_id: UUID, arguments: Mapping[str, str] | None = None
) -> bool:
    """Return whether the arguments of a scheme's catalogs contain the due time."""
    if any(DUE_AT_PLACEHOLDER in str(value) for value in (arguments or {}).values()):
        return True
    return bool(
        row(
            connection,
            """SELECT 1 FROM catlog.catalog_scheme_operation
               WHERE scheme_id = :scheme AND strpos(arguments::text, :due_at) > 0""",
            scheme=scheme_id,
            due_at=DUE_AT_PLACEHOLDER,
        )
    )


def cancel(engine: Database, catalog_id: UUID) -> None:
    """Stop an open catalog and its sub-catalogs. Raises NotFound, NotPossible."""
    with engine.begin() as connection:
        catalog = lock_catalog(connection, catalog_id)
        if catalog.state not in OPEN_STATES:
            raise NotPossible(
                f"catalog {catalog_id} is {catalog.state}; only an open catalog can be cancelled."
            )
        _cancel(connection, catalog)


def _cancel(connection: Connection, catalog: LockedCatalog) -> None:
    for child in lock_children(connection, catalog.id):
        if child.state in OPEN_STATES:
            _cancel(connection, child)
    stop_catalog(connection, catalog, "cancelled", "cancelled by request")


def retry(engine: Database, catalog_id: UUID) -> None:
    """Load again what a failed or cancelled catalog lacks; done instances stay done.

    Raises NotFound, or NotPossible if the catalog has not failed or if its rows were purged.
    """
    with engine.begin() as connection:
        catalog = lock_catalog(connection, catalog_id)
        if catalog.state not in ("failed", "cancelled"):
            raise NotPossible(
                f"catalog {catalog_id} is {catalog.state}; only a failed or cancelled"
                " catalog can be retried."
            )
        _retry(connection, catalog)


def retry_now(engine: Database, catalog_id: UUID) -> None:
    """Retry a catalog like `retry`; in an open catalog, end the waits for the next attempts.

    Raises NotFound, or NotPossible if nothing in the open catalog waits for its next attempt.
    """
    with engine.begin() as connection:
        catalog = lock_catalog(connection, catalog_id)
        if catalog.state in ("failed", "cancelled"):
            _retry(connection, catalog)
        elif not _end_waits(connection, catalog):
            raise NotPossible(
                f"catalog {catalog_id} is {catalog.state}, and nothing in it waits for its next"
                " attempt; scrapy status shows what runs."
            )


def _end_waits(connection: Connection, catalog: LockedCatalog) -> int:
    """End the backoffs of a locked catalog and of its sub-catalogs, and return their number."""
    ended = sum(_end_waits(connection, child) for child in lock_children(connection, catalog.id))
    if catalog.state == "loading":
        ended += run(
            connection,
            """UPDATE catlog.catalog_scheme_operation_instance i
               SET available_at = clock_timestamp()
               FROM (SELECT id FROM catlog.catalog_scheme_operation_instance
                     WHERE catalog_id = :id AND state = 'new'
                     ORDER BY id FOR NO KEY UPDATE) AS waiting
               WHERE i.id = waiting.id AND i.available_at > clock_timestamp()""",
            id=catalog.id,
        )
    elif catalog.state == "publishing":
        ended += run(
            connection,
            """UPDATE catlog.catalog SET publish_at = clock_timestamp()
               WHERE id = :id AND publish_at > clock_timestamp()""",
            id=catalog.id,
        )
    return ended


def _retry(connection: Connection, catalog: LockedCatalog) -> None:
    if catalog.purged_at:
        raise NotPossible(
            f"catalog {catalog.id} was purged on {catalog.purged_at:%Y-%m-%d}: its results"
            " are deleted. Make a new catalog with scrapy load."
        )
    for child in lock_children(connection, catalog.id):
        if child.state in ("failed", "cancelled"):
            _retry(connection, child)
    # The attempts that were running when the catalog was cancelled must not count as running.
    run(
        connection,
        """UPDATE catlog.instance_attempt a
           SET outcome = 'cancelled', finished_at = clock_timestamp()
           FROM catlog.catalog_scheme_operation_instance i
           WHERE i.catalog_id = :id AND a.instance_id = i.id AND a.outcome IS NULL""",
        id=catalog.id,
    )
    run(
        connection,
        """UPDATE catlog.catalog_scheme_operation_instance i
           SET state = 'new', requeued = true, failures = 0, lost = 0, node = NULL,
               lease_expires_at = NULL, available_at = clock_timestamp()
           FROM (SELECT id FROM catlog.catalog_scheme_operation_instance
                 WHERE catalog_id = :id AND state IN ('failed', 'cancelled')
                 ORDER BY id FOR NO KEY UPDATE) AS again
           WHERE i.id = again.id""",
        id=catalog.id,
    )
    run(
        connection,
        """UPDATE catlog.catalog c SET errors = 0, first_error = NULL, error = NULL,
               finished_at = NULL, publish_failures = 0, publish_at = clock_timestamp(),
               prune_at = DEFAULT,
               state = CASE
                   WHEN EXISTS (SELECT 1 FROM catlog.catalog WHERE parent_id = c.id) THEN 'loading'
                   WHEN NOT EXISTS (SELECT 1 FROM catlog.catalog_scheme_operation_instance
                                    WHERE catalog_id = c.id) THEN 'waiting'
                   WHEN EXISTS (SELECT 1 FROM catlog.catalog_scheme_operation_instance
                                WHERE catalog_id = c.id AND state <> 'done') THEN 'loading'
                   ELSE 'publishing' END
           WHERE id = :id""",
        id=catalog.id,
    )
    update_parent_state(connection, catalog.parent_id)
