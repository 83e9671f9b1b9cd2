"""Pruning of versions, the former states of records."""

from sqlalchemy import Connection

from catlog_scrapy.store.maintenance.retention import MAX_KEEP_S
from catlog_scrapy.store.sql import run, scalar

# Versions whose kind has a `keep` for each of its operations; without one they stay for ever.
EXPIRED = f"""
    FROM catlog.record_version v
    JOIN (SELECT s.provider_id, k.name AS kind, max(o.keep) AS keep
          FROM catlog.kind k
          JOIN catlog.catalog_scheme_operation o ON o.id = k.operation_id
          JOIN catlog.catalog_scheme s ON s.id = o.scheme_id
          WHERE s.retired_at IS NULL GROUP BY 1, 2 HAVING bool_and(o.keep IS NOT NULL)) AS old
        ON v.provider_id = old.provider_id AND v.kind = old.kind
    WHERE v.valid_to < now() - make_interval(secs => least(old.keep, {MAX_KEEP_S}))"""


def count_expired_versions(connection: Connection) -> int:
    """Count the versions that are older than the `keep` of their kind."""
    return int(scalar(connection, f"SELECT count(*) {EXPIRED}"))


def delete_expired_versions(connection: Connection, limit: int) -> int:
    """Delete up to *limit* versions that are older than the `keep` of their kind."""
    return run(
        connection,
        f"""DELETE FROM catlog.record_version
            WHERE ctid = ANY(ARRAY(SELECT v.ctid {EXPIRED} LIMIT :limit))""",
        limit=limit,
    )
