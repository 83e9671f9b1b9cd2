"""Publishing of catalogs: selection, retries, and the transaction that makes all rows visible."""

from collections import Counter
from uuid import UUID

import orjson
from sqlalchemy import Connection, Engine, exc

from catlog_scrapy.db.engine import reason
from catlog_scrapy.exceptions import PublishRefused
from catlog_scrapy.store.batch_errors import FAULTS
from catlog_scrapy.store.lock_timeouts import set_statement_timeout
from catlog_scrapy.store.publishing.operations import (
    CatalogLoad,
    operations_of,
    publish_operation,
)
from catlog_scrapy.store.publishing.publications import record_publication
from catlog_scrapy.store.queue.catalog_states import lock_catalog, stop_catalog, update_parent_state
from catlog_scrapy.store.queue.results import purge_unfinished_attempts
from catlog_scrapy.store.sql import row, rows, run

# A failed publish is retried after this long for each failure so far, up to the maximum.
PUBLISH_RETRY_S, MAX_PUBLISH_RETRY_S = 5.0, 600.0

# First key of the advisory locks; any number that no other program uses.
PUBLISH_LOCK = 4_226_002


def publish_next(engine: Engine) -> UUID | None:
    """Publish one waiting catalog and return its id, or None if there is nothing to publish.

    The oldest catalog of a provider goes first: published after a newer catalog it would be stale
    and leave no history. After an error the catalog stays `publishing` and is retried later,
    without a crawl.
    """
    with engine.connect() as connection:
        waiting = rows(
            connection,
            """SELECT DISTINCT ON (provider_id) id FROM catlog.catalog
               WHERE state = 'publishing' AND publish_at <= clock_timestamp()
               ORDER BY provider_id, as_of, created_at""",
        )
    return next((c["id"] for c in waiting if publish(engine, c["id"])), None)


class _CatalogStopped(Exception):
    """The catalog was cancelled during its publish. Raised and caught in this module."""


def publish(engine: Engine, catalog_id: UUID) -> bool:
    """Publish this catalog.

    Returns False if the catalog does not wait for publishing, or if another process publishes for
    the same provider now.
    """
    try:
        with engine.begin() as connection:
            if not _publish(connection, catalog_id):
                return False
    except _CatalogStopped:
        return False
    except PublishRefused as refused:
        with engine.begin() as connection:
            catalog = lock_catalog(connection, catalog_id)
            if catalog.state == "publishing":
                stop_catalog(connection, catalog, "failed", str(refused))
        return True
    except (exc.DBAPIError, *FAULTS) as error:
        _retry_later(engine, catalog_id, reason(error))
        raise
    with engine.begin() as connection:
        purge_unfinished_attempts(connection, catalog_id)
    return True


def _retry_later(engine: Engine, catalog_id: UUID, error: str) -> None:
    with engine.begin() as connection:
        run(
            connection,
            """UPDATE catlog.catalog SET publish_failures = publish_failures + 1,
                   error = :error, publish_at = clock_timestamp()
                       + make_interval(secs => least(:longest, :wait * (publish_failures + 1)))
               WHERE id = :id AND state = 'publishing'""",
            id=catalog_id,
            error=f"publishing failed and will be tried again: {error}",
            wait=PUBLISH_RETRY_S,
            longest=MAX_PUBLISH_RETRY_S,
        )


def _publish(connection: Connection, catalog_id: UUID) -> bool:
    _prepare_planner(connection)
    load = _lock_for_publishing(connection, catalog_id)
    if load is None:
        return False
    counts: Counter[str] = Counter()
    changed_kinds: set[str] = set()
    for operation in operations_of(connection, catalog_id):
        changes = publish_operation(connection, load, operation)
        counts.update(changes.counts)
        changed_kinds |= changes.changed_kinds
    # The row lock comes last: sibling attempts need the parent's lock to end, and a large publish
    # takes minutes. Until here the advisory lock keeps other publishers out.
    catalog = lock_catalog(connection, catalog_id)
    if catalog.state != "publishing":
        raise _CatalogStopped
    run(
        connection,
        """UPDATE catlog.catalog SET state = 'loaded', finished_at = clock_timestamp(),
               published = CAST(:counts AS jsonb), error = NULL WHERE id = :id""",
        id=catalog_id,
        counts=orjson.dumps(counts).decode(),
    )
    if changed_kinds:
        record_publication(connection, load.provider, changed_kinds, catalog_id, load.now)
    update_parent_state(connection, catalog.parent_id)
    return True


def _prepare_planner(connection: Connection) -> None:
    """Let the statements take their time, and let the planner prefer hash joins.

    The rows have just arrived and have no statistics, so the planner would expect a few rows and
    sort them twice. Hash joins are the best choice whatever the number of rows.
    """
    set_statement_timeout(connection)
    run(
        connection,
        """SET LOCAL work_mem = '256MB';
           SET LOCAL enable_sort = off; SET LOCAL enable_mergejoin = off""",
    )


def _lock_for_publishing(connection: Connection, catalog_id: UUID) -> CatalogLoad | None:
    """Take the provider's publish lock and read the catalog, or return None.

    The state is read by a second statement, whose snapshot is taken after the lock.
    """
    lock = row(
        connection,
        """SELECT pg_try_advisory_xact_lock(:key, hashtext(provider_id::text)) AS taken
           FROM catlog.catalog WHERE id = :id""",
        key=PUBLISH_LOCK,
        id=catalog_id,
    )
    if lock is None or not lock["taken"]:
        return None
    catalog = row(
        connection,
        """SELECT id, provider_id AS provider, as_of, is_full, clock_timestamp() AS now
           FROM catlog.catalog WHERE id = :id AND state = 'publishing'""",
        id=catalog_id,
    )
    return CatalogLoad(**catalog) if catalog else None
