"""Publishing of catalogs: selection, retries, and the transaction that makes all rows visible."""

import datetime as dt
import logging
from collections import Counter
from collections.abc import Iterable
from uuid import UUID

import orjson
from sqlalchemy import Connection, Engine, exc

from catlog_scrapy.db.engine import reason
from catlog_scrapy.exceptions import PublishRefused
from catlog_scrapy.store.batch_errors import FAULTS
from catlog_scrapy.store.lock_timeouts import set_statement_timeout
from catlog_scrapy.store.publishing.operations import CatalogLoad, publish_operations
from catlog_scrapy.store.publishing.publications import next_time, record_publication
from catlog_scrapy.store.queue.catalog_states import lock_catalog, stop_catalog, update_parent_state
from catlog_scrapy.store.queue.results import purge_unfinished_attempts
from catlog_scrapy.store.record_tables.indexes import changed_duplicate
from catlog_scrapy.store.schemes import all_kinds
from catlog_scrapy.store.sql import row, rows, run

logger = logging.getLogger(__name__)

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
            """SELECT DISTINCT ON (c.provider_id) c.id FROM catlog.catalog c
               CROSS JOIN LATERAL (
                   SELECT min(a.as_of) AS as_of
                   FROM catlog.catalog_scheme_operation_instance i
                   JOIN catlog.instance_attempt a
                       ON a.instance_id = i.id AND a.attempt = i.attempt
                   WHERE i.catalog_id = c.id) AS read
               WHERE c.state = 'publishing' AND c.publish_at <= clock_timestamp()
               ORDER BY c.provider_id,
                   CASE WHEN c.as_of = c.due_at THEN c.as_of ELSE read.as_of END, c.created_at""",
        )
    return next((c["id"] for c in waiting if publish(engine, c["id"])), None)


# The records of the catalog `c` were published at a due time that lies ahead, by a clock that was
# wrong. Its newest due time until now then counts as read by its attempts: by its own time it would
# be stale until that time has come.
IS_AHEAD = """(
    EXISTS (
        SELECT 1 FROM catlog.scope s JOIN catlog.catalog_scheme v
            ON v.provider_id = s.provider_id AND v.name = s.scheme_name
        WHERE v.id = c.scheme_id AND s.high_water_mark > clock_timestamp())
    AND NOT EXISTS (
        SELECT 1 FROM catlog.catalog later
        JOIN catlog.catalog_scheme v ON v.id = later.scheme_id
        JOIN catlog.catalog_scheme own
            ON own.provider_id = v.provider_id AND own.name = v.name
        WHERE own.id = c.scheme_id AND later.state = 'loaded' AND later.due_at > c.due_at
          AND later.due_at <= clock_timestamp()))"""


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
        purge_unfinished_attempts(connection, [catalog_id])
    return True


def _retry_later(engine: Engine, catalog_id: UUID, error: str) -> None:
    with engine.begin() as connection:
        run(
            connection,
            """UPDATE catlog.catalog SET publish_failures = publish_failures + 1,
                   first_error = coalesce(first_error, :error), error = :error,
                   publish_at = clock_timestamp()
                       + make_interval(secs => least(:longest, :wait * (publish_failures + 1)))
               WHERE id = :id AND state = 'publishing'""",
            id=catalog_id,
            error=f"publishing failed and will be tried again: {error}",
            wait=PUBLISH_RETRY_S,
            longest=MAX_PUBLISH_RETRY_S,
        )


def _publish(connection: Connection, catalog_id: UUID) -> bool:
    set_statement_timeout(connection)
    load = _lock_for_publishing(connection, catalog_id)
    if load is None:
        return False
    _warn_of_clock(connection, catalog_id)
    counts: Counter[str] = Counter()
    changed_kinds: set[str] = set()
    earliest: list[dt.datetime] = []
    for changes in publish_operations(connection, load):
        counts.update(changes.counts)
        changed_kinds |= changes.changed_kinds
        if changes.earliest is not None:
            earliest.append(changes.earliest)
    _refuse_duplicates(connection, load, changed_kinds)
    # The row lock comes last: sibling attempts need the parent's lock to end, and a large publish
    # takes minutes. Until here the advisory lock keeps other publishers out.
    catalog = lock_catalog(connection, catalog_id)
    if catalog.state != "publishing":
        raise _CatalogStopped
    run(
        connection,
        """UPDATE catlog.catalog SET state = 'loaded', finished_at = clock_timestamp(),
               published = CAST(:counts AS jsonb), error = NULL, as_of = coalesce(:as_of, as_of)
           WHERE id = :id""",
        id=catalog_id,
        as_of=load.own_as_of or min(earliest, default=None),
        counts=orjson.dumps(counts).decode(),
    )
    if changed_kinds:
        record_publication(connection, load.provider, changed_kinds, catalog_id, load.now)
    update_parent_state(connection, catalog.parent_id)
    return True


def _refuse_duplicates(connection: Connection, load: CatalogLoad, kinds: Iterable[str]) -> None:
    """Raise PublishRefused if a changed record shares values that its kind declares unique.

    The check comes after all changes, so that a load may exchange the values of two records.
    """
    definitions = all_kinds(connection)
    for kind in sorted(kinds):
        shared = changed_duplicate(connection, definitions[kind], load.provider_number, load.number)
        if shared:
            raise PublishRefused(
                f"two records of {kind} have {shared}, which the kind declares unique. Correct the"
                " source or the spider, or remove `unique` and run scrapy apply and scrapy retry."
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
        f"""SELECT c.id, c.number, c.provider_id AS provider, p.number AS provider_number,
               CASE WHEN c.as_of = c.due_at AND NOT (c.origin <> 'backfill' AND {IS_AHEAD})
                   THEN c.as_of END AS own_as_of, c.is_full,
               c.origin = 'backfill' AS is_backfill,
               {next_time("c.provider_id")} AS now
           FROM catlog.catalog c JOIN catlog.provider p ON p.id = c.provider_id
           WHERE c.id = :id AND c.state = 'publishing'""",
        id=catalog_id,
    )
    return CatalogLoad(**catalog) if catalog else None


def _warn_of_clock(connection: Connection, catalog_id: UUID) -> None:
    """Warn if the server's clock stands behind the time of a reading or of the last publication.

    Times then advance by microseconds: intervals of the history never invert, and present loads are
    newer than what was published.
    """
    behind = row(
        connection,
        """SELECT clock_timestamp() AS clock, max(latest) AS latest FROM (
               SELECT max(a.as_of) AS latest FROM catlog.catalog_scheme_operation_instance i
               JOIN catlog.instance_attempt a ON a.instance_id = i.id AND a.attempt = i.attempt
               WHERE i.catalog_id = :id
               UNION ALL
               SELECT max(p.published_at) FROM catlog.publication p
               JOIN catlog.catalog c ON c.provider_id = p.provider_id WHERE c.id = :id) AS known
           HAVING max(latest) > clock_timestamp()""",
        id=catalog_id,
    )
    if behind:
        logger.warning(
            "the database's clock, %s, stands behind the newest time that it gave, %s; until it has"
            " caught up, loads count as read and published just after that time",
            behind["clock"],
            behind["latest"],
        )
