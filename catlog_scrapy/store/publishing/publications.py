"""Publications: time of the last publish that changed a provider's records of a kind."""

import datetime as dt
from collections.abc import Iterable
from uuid import UUID

from sqlalchemy import Connection

from catlog_scrapy.store.sql import run


def next_time(provider: str) -> str:
    """Return the SQL expression of the time of the next publication.

    *provider* is the SQL expression of the provider's id. Publications never go back in time,
    whatever the server's clock does.
    """
    return f"""greatest(clock_timestamp(), (
        SELECT max(published_at) + interval '1 microsecond' FROM catlog.publication
        WHERE provider_id = {provider}))"""


def record_publication(
    connection: Connection,
    provider: UUID,
    kinds: Iterable[str],
    catalog_id: UUID | None,
    now: dt.datetime,
) -> None:
    """Tell caches that their copies of the provider's records of *kinds* are outdated."""
    run(
        connection,
        """INSERT INTO catlog.publication (provider_id, kind, catalog_id, published_at)
           SELECT :provider, kind, :catalog, :now FROM unnest(CAST(:kinds AS text[])) AS kind
           ON CONFLICT (provider_id, kind) DO UPDATE
               SET catalog_id = excluded.catalog_id, published_at = excluded.published_at""",
        provider=provider,
        kinds=sorted(kinds),
        catalog=catalog_id,
        now=now,
    )
