"""Change stamps: cache validators that change when readers would see other rows."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from catlog_scrapy.store.sql import run, scalar

# Stands for the kind in the publication that records changes of views.
ALL_VIEWS = ""
# Stands for the kind in the publication that records the pruning of versions.
ALL_VERSIONS = "*"


def change_stamp(connection: Connection, kinds: Sequence[str]) -> str:
    """Return a hash of the last publishes of *kinds*, then the time of the last view change.

    Every publish that readers can see, and every change of a view, changes the stamp.
    """
    sql, values = stamp_statement(kinds)
    return str(scalar(connection, sql, **values))


def stamp_statement(kinds: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Return the statement of the change stamp of *kinds*, and its parameters."""
    return CHANGE_STAMP, {"kinds": list(kinds)}


def views_stamp(stamp: str) -> str:
    """Return the part of *stamp* that says when a view last changed."""
    return stamp.partition(" ")[2]


CHANGE_STAMP = f"""
    SELECT concat_ws(' ',
        left(md5(coalesce(string_agg(
            concat_ws(' ', provider_id, kind, catalog_id, extract(epoch FROM published_at)), ','
            ORDER BY provider_id, kind), '')), 16),
        extract(epoch FROM max(published_at) FILTER (WHERE kind = '{ALL_VIEWS}'))) AS stamp
    FROM catlog.publication WHERE kind = ANY(:kinds) OR kind = '{ALL_VIEWS}'"""


def record_view_change(connection: Connection) -> None:
    """Tell caches that a view was replaced or dropped."""
    _record(connection, ALL_VIEWS)


def record_pruned_versions(connection: Connection) -> None:
    """Tell caches that views as of a time may have lost rows."""
    _record(connection, ALL_VERSIONS)


def _record(connection: Connection, what: str) -> None:
    run(
        connection,
        """INSERT INTO catlog.publication (provider_id, kind, published_at)
           VALUES (:no_provider, :what, clock_timestamp())
           ON CONFLICT (provider_id, kind) DO UPDATE SET published_at = excluded.published_at""",
        no_provider=UUID(int=0),
        what=what,
    )
