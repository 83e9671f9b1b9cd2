"""Change stamps of views, for caches."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Connection

from catlog_scrapy.store.sql import row, run
from catlog_scrapy.store.views.lineage import ALL_VIEWS


def change_stamp(connection: Connection, kinds: Sequence[str]) -> str:
    """A short hash of the last publishes that changed any provider's records of *kinds*.

    And behind it when any view was made anew. It is another one as soon as readers see anything
    else.
    """
    found = row(connection, CHANGE_STAMP, kinds=list(kinds))
    return str(found["stamp"]) if found else ""


def views_stamp(stamp: str) -> str:
    """When any view was last made anew, as a stamp has it."""
    return stamp.partition(" ")[2]


CHANGE_STAMP = f"""
    SELECT concat_ws(' ',
        left(md5(coalesce(string_agg(
            concat_ws(' ', provider_id, kind, catalog_id, extract(epoch FROM published_at)), ','
            ORDER BY provider_id, kind), '')), 16),
        extract(epoch FROM max(published_at) FILTER (WHERE kind = '{ALL_VIEWS}'))) AS stamp
    FROM catlog.publication WHERE kind = ANY(:kinds) OR kind = '{ALL_VIEWS}'"""


def record_view_change(connection: Connection) -> None:
    """Tell readers that a view is another one now, or gone."""
    run(
        connection,
        """INSERT INTO catlog.publication (provider_id, kind, published_at)
           VALUES (:nobody, :views, clock_timestamp())
           ON CONFLICT (provider_id, kind) DO UPDATE SET published_at = excluded.published_at""",
        nobody=UUID(int=0),
        views=ALL_VIEWS,
    )
