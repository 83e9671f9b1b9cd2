"""Record tables: one partition of the table of records for each kind."""

from sqlalchemy import Connection

from catlog_scrapy.store.sql import rows, run


def create_partitions(connection: Connection) -> None:
    """Create the partition of each kind that has none.

    A table that is attached later locks the parent less than CREATE TABLE ... PARTITION OF, so
    loads go on.
    """
    missing = rows(
        connection,
        """SELECT DISTINCT k.name FROM catlog.kind k WHERE NOT EXISTS (
               SELECT 1 FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
               WHERE i.inhparent = 'catlog.record'::regclass
                 AND pg_get_expr(c.relpartbound, c.oid) = format('FOR VALUES IN (%L)', k.name))
           ORDER BY 1""",
    )
    for kind in missing:
        table = f'catlog."record_{kind["name"]}"'
        run(connection, f"CREATE TABLE {table} (LIKE catlog.record INCLUDING ALL)")
        run(
            connection,
            f"""ALTER TABLE catlog.record
                ATTACH PARTITION {table} FOR VALUES IN ('{kind["name"]}')""",
        )
