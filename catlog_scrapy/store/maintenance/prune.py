"""What is no longer needed goes; what is current stays."""

from dataclasses import dataclass

from sqlalchemy import Connection, Engine

from catlog_scrapy.store.access.idempotency import KEEP_RESPONSES_S
from catlog_scrapy.store.access.logins import FORGET_FAILURES_AFTER_S
from catlog_scrapy.store.queue.results import purge_batch_log, purge_unfinished_attempts
from catlog_scrapy.store.sql import row, rows, run


@dataclass
class PruneCounts:
    """How many rows were, or would be, deleted."""

    results: int = 0
    rejected: int = 0
    versions: int = 0
    unfinished: int = 0
    access: int = 0


# Of the ended catalogs some can still be retried: nobody does while their rows go.
RETRIABLE = """
    SELECT c.id FROM catlog.catalog c
    WHERE c.state IN ('failed', 'cancelled') AND c.purged_at IS NULL AND EXISTS (
        SELECT 1 FROM catlog.catalog_scheme_operation_instance i
        JOIN catlog.catalog_scheme_operation o ON o.id = i.operation_id
        WHERE i.catalog_id = c.id
          AND c.finished_at < clock_timestamp() - make_interval(secs => o.keep))
    FOR NO KEY UPDATE OF c SKIP LOCKED"""

# Waits for nobody: the retriable ones are locked already, and a loaded one needs no mark.
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
    SELECT count(*) AS rows FROM gone"""

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
    """Delete results, rejects and versions older than their operation's `keep`.

    And what attempts left behind that lost, and tokens, answers and failed log-ins that count no
    more. With *dry_run* it only counts. A catalog of which results or rejects went, be it of one
    operation, cannot be retried.
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
    """Answers that nobody is given again, tokens that count no more, failures long past."""
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
    gone = row(connection, EXPIRED_ROWS.format(table=table), retriable=retriable)
    return gone["rows"] if gone else 0
