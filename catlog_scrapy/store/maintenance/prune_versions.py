"""Pruning of versions, the former states of records."""

from collections.abc import Iterator

from sqlalchemy import Connection

from catlog_scrapy.store.maintenance.retention import MAX_KEEP_S
from catlog_scrapy.store.schemes import all_kinds
from catlog_scrapy.store.sql import rows, run, scalar
from catlog_scrapy.store.views.change_stamps import record_pruned_versions

# The providers and kinds whose versions expire: each operation of them has a `keep`.
EXPIRING = f"""
    SELECT p.number AS provider, k.name AS kind, least(max(o.keep), {MAX_KEEP_S}) AS keep
    FROM catlog.kind k
    JOIN catlog.catalog_scheme_operation o ON o.id = k.operation_id
    JOIN catlog.catalog_scheme s ON s.id = o.scheme_id
    JOIN catlog.provider p ON p.id = s.provider_id
    WHERE s.retired_at IS NULL GROUP BY 1, 2 HAVING bool_and(o.keep IS NOT NULL)"""

EXPIRED = "_provider = :provider AND _valid_to < now() - make_interval(secs => :keep)"


def count_expired_versions(connection: Connection) -> int:
    """Count the versions that are older than the `keep` of their kind."""
    return sum(
        scalar(connection, f"SELECT count(*) FROM {table} WHERE {EXPIRED}", **values)
        for table, values in _expiring(connection)
    )


def delete_expired_versions(connection: Connection, limit: int) -> int:
    """Delete up to *limit* versions that are older than the `keep` of their kind."""
    deleted = 0
    for table, values in _expiring(connection):
        deleted += run(
            connection,
            f"""DELETE FROM {table} WHERE ctid = ANY(ARRAY(
                    SELECT ctid FROM {table} WHERE {EXPIRED} LIMIT :limit))""",
            limit=limit - deleted,
            **values,
        )
    if deleted:
        record_pruned_versions(connection)
    return deleted


def _expiring(connection: Connection) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield the table of versions, provider and `keep` of each kind whose versions expire."""
    kinds = all_kinds(connection)
    for found in rows(connection, EXPIRING):
        table = kinds[found["kind"]].versions_table
        yield table, {"provider": found["provider"], "keep": found["keep"]}
