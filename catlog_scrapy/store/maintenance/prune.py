"""Pruning: deletion of old results, versions, and traces of access."""

from dataclasses import dataclass

from sqlalchemy import Connection, Engine

from catlog_scrapy.store.access.idempotency import KEEP_RESPONSES_S
from catlog_scrapy.store.access.logins import FORGET_FAILURES_AFTER_S
from catlog_scrapy.store.queue.results import purge_batch_log, purge_unfinished_attempts
from catlog_scrapy.store.sql import rows, run, scalar


@dataclass
class PruneCounts:
    """Numbers of rows that were, or would be, deleted."""

    results: int = 0
    rejected: int = 0
    versions: int = 0
    unfinished: int = 0
    access: int = 0


# The ended catalogs that could still be retried. The lock prevents a retry while their rows are
# deleted.
RETRIABLE = """
    SELECT c.id FROM catlog.catalog c
    WHERE c.state IN ('failed', 'cancelled') AND c.purged_at IS NULL AND EXISTS (
        SELECT 1 FROM catlog.catalog_scheme_operation_instance i
        JOIN catlog.catalog_scheme_operation o ON o.id = i.operation_id
        WHERE i.catalog_id = c.id
          AND c.finished_at < clock_timestamp() - make_interval(secs => o.keep))
    FOR NO KEY UPDATE OF c SKIP LOCKED"""

# SKIP LOCKED, so that pruning never waits: retriable catalogs are locked already, and a loaded
# catalog works without purged_at.
EXPIRED_ROWS = """
    WITH gone AS (
        DELETE FROM catlog.{table} r
        USING catlog.catalog_scheme_operation_instance i
        JOIN catlog.catalog_scheme_operation o ON o.id = i.operation_id
        JOIN catlog.catalog c ON c.id = i.catalog_id
        WHERE r.instance_id = i.id
          AND c.finished_at < clock_timestamp() - make_interval(secs => o.keep)
          AND (c.state = 'loaded' OR c.id = ANY(CAST(:retriable AS uuid[]))
               OR c.state IN ('failed', 'cancelled') AND c.purged_at IS NOT NULL)
        RETURNING c.id AS catalog_id),
    marked AS (
        UPDATE catlog.catalog SET purged_at = clock_timestamp()
        WHERE id IN (SELECT id FROM catlog.catalog
                     WHERE purged_at IS NULL AND id IN (SELECT catalog_id FROM gone)
                     FOR NO KEY UPDATE SKIP LOCKED))
    SELECT count(*) FROM gone"""

EXPIRED_VERSIONS = """
    DELETE FROM catlog.record_version v
    USING (SELECT s.provider_id, k.name AS kind, max(o.keep) AS keep
           FROM catlog.kind k
           JOIN catlog.catalog_scheme_operation o ON o.id = k.operation_id
           JOIN catlog.catalog_scheme s ON s.id = o.scheme_id
           WHERE s.retired_at IS NULL GROUP BY 1, 2 HAVING bool_and(o.keep IS NOT NULL)) AS old
    WHERE v.provider_id = old.provider_id AND v.kind = old.kind
      AND v.valid_to < clock_timestamp() - make_interval(secs => old.keep)"""


def prune(engine: Engine, *, dry_run: bool = False) -> PruneCounts:
    """Delete results, rejected items and versions that are older than their operation's `keep`.

    Also deletes results of attempts that are not done, expired tokens, stored replies, and old
    login failures. With *dry_run* the rows are only counted. A catalog that has lost results or
    rejected items cannot be retried.
    """
    pruned = PruneCounts()
    with engine.connect() as connection, connection.begin() as transaction:
        run(connection, "SET LOCAL statement_timeout = 0")
        retriable = [str(catalog["id"]) for catalog in rows(connection, RETRIABLE)]
        pruned.results = _expire(connection, "catalog_operation_instance_result", retriable)
        pruned.rejected = _expire(connection, "rejected_result", retriable)
        pruned.versions = run(connection, EXPIRED_VERSIONS)
        pruned.unfinished = purge_unfinished_attempts(connection) + purge_batch_log(connection)
        pruned.access = _forget(connection)
        if dry_run:
            transaction.rollback()
    return pruned


def _forget(connection: Connection) -> int:
    """Delete expired replies of idempotent requests, expired tokens, and old login failures."""
    return (
        run(
            connection,
            """DELETE FROM catlog.idempotent_request
               WHERE created_at < clock_timestamp() - make_interval(secs => :kept)""",
            kept=KEEP_RESPONSES_S,
        )
        + run(connection, "DELETE FROM catlog.refresh_token WHERE expires_at < clock_timestamp()")
        + run(
            connection,
            """DELETE FROM catlog.login_failure
               WHERE last_at < clock_timestamp() - make_interval(secs => :forgotten)""",
            forgotten=FORGET_FAILURES_AFTER_S,
        )
    )


def _expire(connection: Connection, table: str, retriable: list[str]) -> int:
    return int(scalar(connection, EXPIRED_ROWS.format(table=table), retriable=retriable))
