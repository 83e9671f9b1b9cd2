"""Creation and change of the record tables, for `scrapy apply`."""

from collections.abc import Iterable

from sqlalchemy import Connection

from catlog_scrapy.store.definitions import KindDefinition
from catlog_scrapy.store.record_tables.layout import RECORDS_SCHEMA, create_statements
from catlog_scrapy.store.sql import execute, rows


def stored_columns(connection: Connection, kind: str) -> dict[str, str]:
    """Return the fields in the table of *kind* with their SQL types, in the table's order.

    Fields that no declaration has any more are among them. Without a table, the result is empty.
    """
    found = rows(
        connection,
        """SELECT attname AS name, format_type(atttypid, atttypmod) AS type FROM pg_attribute
           WHERE attrelid = to_regclass(format('%I.%I', CAST(:schema AS text), CAST(:kind AS text)))
             AND attnum > 0 AND NOT attisdropped AND NOT starts_with(attname, '_')
           ORDER BY attnum""",
        schema=RECORDS_SCHEMA,
        kind=kind,
    )
    return {column["name"]: column["type"] for column in found}


def create_tables(connection: Connection, kinds: Iterable[KindDefinition]) -> None:
    """Create the tables of each kind that has none."""
    for kind in kinds:
        if not stored_columns(connection, kind.name):
            for statement in create_statements(kind):
                execute(connection, statement)
