"""What is no longer needed goes; what is current stays."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, Engine

from catlog_scrapy.store.results import purge_losers
from catlog_scrapy.store.transactions import rows, run


@dataclass
class Pruned:
    """How many rows were, or would be, deleted."""

    results: int = 0
    rejected: int = 0
    versions: int = 0
    losers: int = 0


EXPIRED_CATALOGS = """
    SELECT DISTINCT c.id FROM catlog.catalog c
    JOIN catlog.catalog_scheme_operation_instance i ON i.catalog_id = c.id
    JOIN catlog.catalog_scheme_operation o ON o.id = i.operation_id
    WHERE c.state IN ('loaded', 'failed', 'cancelled') AND c.purged_at IS NULL
      AND c.finished_at < clock_timestamp() - make_interval(secs => o.keep)"""

EXPIRED_VERSIONS = """
    DELETE FROM catlog.record_version v
    USING (SELECT s.provider_id, k.name AS kind, max(o.keep) AS keep
           FROM catlog.kind k
           JOIN catlog.catalog_scheme_operation o ON o.id = k.operation_id
           JOIN catlog.catalog_scheme s ON s.id = o.scheme_id
           WHERE s.retired_at IS NULL GROUP BY 1, 2 HAVING bool_and(o.keep IS NOT NULL)) AS old
    WHERE v.provider_id = old.provider_id AND v.kind = old.kind
      AND v.valid_to < clock_timestamp() - make_interval(secs => old.keep)"""


def prune(engine: Engine, *, dry_run: bool = False) -> Pruned:
    """Delete results, rejects and versions older than their operation's `keep`.

    And what attempts left behind that lost. With *dry_run* it only counts. A catalog whose rows
    went cannot be retried.
    """
    pruned = Pruned()
    with engine.connect() as connection, connection.begin() as transaction:
        run(connection, "SET LOCAL statement_timeout = 0")
        expired = [catalog["id"] for catalog in rows(connection, EXPIRED_CATALOGS)]
        for catalog_id in expired:
            pruned.results += _delete(connection, "catalog_operation_instance_result", catalog_id)
            pruned.rejected += _delete(connection, "rejected_result", catalog_id)
            run(
                connection,
                "UPDATE catlog.catalog SET purged_at = clock_timestamp() WHERE id = :id",
                id=catalog_id,
            )
        pruned.versions = run(connection, EXPIRED_VERSIONS)
        ended = rows(
            connection,
            """SELECT DISTINCT c.id FROM catlog.catalog c
               JOIN catlog.catalog_scheme_operation_instance i ON i.catalog_id = c.id
               JOIN catlog.instance_attempt a ON a.instance_id = i.id
               WHERE c.state IN ('loaded', 'failed', 'cancelled') AND a.outcome <> 'done'""",
        )
        pruned.losers = sum(purge_losers(connection, catalog["id"]) for catalog in ended)
        if dry_run:
            transaction.rollback()
    return pruned


def _delete(connection: Connection, table: str, catalog_id: UUID) -> int:
    return run(
        connection,
        f"""DELETE FROM catlog.{table} r USING catlog.catalog_scheme_operation_instance i
            WHERE i.catalog_id = :id AND r.instance_id = i.id""",
        id=catalog_id,
    )
