"""Reaping: ends of attempts whose lease has expired."""

from uuid import UUID

from sqlalchemy import Engine

from catlog_scrapy.store.queue.attempts import LOCKED_COLUMNS, LockedInstance, close_lost
from catlog_scrapy.store.queue.catalog_states import try_lock_catalog
from catlog_scrapy.store.sql import row, rows


def reap(engine: Engine, *, lease: float = 60.0) -> int:
    """End the attempts whose lease has expired, and return their number.

    Nothing ends within one *lease* (seconds) after the server's own start: the workers could not
    renew their leases while the server was down.
    """
    with engine.connect() as connection:
        expired = rows(
            connection,
            """SELECT id, catalog_id FROM catlog.catalog_scheme_operation_instance
               WHERE node IS NOT NULL AND lease_expires_at < clock_timestamp()
                 AND clock_timestamp()
                     > pg_postmaster_start_time() + make_interval(secs => :lease)""",
            lease=lease,
        )
    return sum(_reap_one(engine, instance["id"], instance["catalog_id"]) for instance in expired)


def _reap_one(engine: Engine, instance_id: UUID, catalog_id: UUID) -> bool:
    with engine.begin() as connection:
        catalog = try_lock_catalog(connection, catalog_id)
        if catalog is None:
            return False
        found = row(
            connection,
            f"""SELECT {LOCKED_COLUMNS} FROM catlog.catalog_scheme_operation_instance i
               JOIN catlog.instance_attempt a ON a.instance_id = i.id AND a.attempt = i.attempt
               WHERE i.id = :id AND i.node IS NOT NULL AND i.lease_expires_at < clock_timestamp()
               FOR NO KEY UPDATE OF i SKIP LOCKED""",
            id=instance_id,
        )
        if found is None:
            return False
        close_lost(connection, LockedInstance(catalog, **found))
        return True
