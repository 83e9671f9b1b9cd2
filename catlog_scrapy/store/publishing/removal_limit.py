"""Limit on the records that one load may remove."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from sqlalchemy import Connection

from catlog_scrapy.exceptions import PublishRefused
from catlog_scrapy.plurals import counted
from catlog_scrapy.store.queue.report import exceeds
from catlog_scrapy.store.sql import scalar

# Share of an operation's records that a snapshot may remove unless `tolerate.removed` says more.
DEFAULT_MAX_REMOVED_SHARE = 0.5


def refuse_too_many_removals(
    connection: Connection,
    operation: str,
    tolerate: Mapping[str, float],
    counts: Mapping[str, int],
    *,
    provider: UUID,
    kinds: Sequence[str],
    is_snapshot: bool,
) -> None:
    """Raise PublishRefused if the merged *counts* removed more records than *tolerate* allows."""
    present = scalar(
        connection,
        """SELECT count(*) FROM catlog.record
           WHERE provider_id = :provider AND kind = ANY(:kinds) AND removed_at IS NULL""",
        provider=provider,
        kinds=list(kinds),
    )
    removed = counts["removed"]
    before = present + removed - counts.get("created", 0) - counts.get("restored", 0)
    # Deletions that the source itself reports are not limited by default.
    default = DEFAULT_MAX_REMOVED_SHARE if is_snapshot else 1.0
    tolerated = tolerate.get("removed", default)
    if exceeds(removed, before, tolerated):
        raise PublishRefused(
            f"{operation} would remove {removed} of {counted(before, 'record')}, tolerated"
            f" {tolerated}. If the source has deleted them, raise tolerate.removed, run"
            " scrapy apply and scrapy retry."
        )
