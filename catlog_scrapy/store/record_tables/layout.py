"""Layout of the record tables: fields in declared order, then narrow columns of catlog's own.

Names of fields never begin with an underscore, names of catlog's columns always do.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from catlog_scrapy.store.definitions import KindDefinition
from catlog_scrapy.store.sql import execute, rows

RECORDS_SCHEMA = "records"

# PostgreSQL's full names of types, and the names that definitions use.
TYPE_ALIASES = {
    "timestamp with time zone": "timestamptz",
    "timestamp without time zone": "timestamp",
    "time without time zone": "time",
}

# The `_hash` of a record whose values `apply` has converted or moved. No content has it, so the
# next load compares the values.
CONVERTED_HASH = UUID(int=2**128 - 1)

# Former states end in two ways.
CHANGES = ("changed", "removed")


class OwnColumn(NamedTuple):
    """Column of catlog's own, with its SQL definition."""

    name: str
    definition: str
    about: str


RECORD_COLUMNS = (
    OwnColumn("_id", "uuid PRIMARY KEY", "128-bit BLAKE2b hash of provider and key"),
    OwnColumn(
        "_hash",
        "uuid",
        "128-bit BLAKE2b hash of the content; NULL if the source had deleted the key before a load"
        " read its record, all ones if `apply` has converted the record since its last load",
    ),
    OwnColumn("_provider", "integer NOT NULL", "`number` of the provider"),
    OwnColumn("_scope", "integer NOT NULL", "`number` of the scope that wrote the record last"),
    OwnColumn("_catalog", "bigint NOT NULL", "`number` of the catalog that wrote the state"),
    OwnColumn("_part", "text", "part that wrote the record last; NULL without parts"),
    OwnColumn(
        "_as_of", "timestamptz NOT NULL", "time of the newest load that wrote or saw the record"
    ),
    OwnColumn("_created_at", "timestamptz NOT NULL", "time of the publish that created the record"),
    OwnColumn("_updated_at", "timestamptz NOT NULL", "time when this state became current"),
    OwnColumn("_removed_at", "timestamptz", "time of removal; NULL for a current record"),
    OwnColumn(
        "_read_at", "timestamptz", "time of the newest load that read the record, with `refresh`"
    ),
)
VERSION_COLUMNS = (
    OwnColumn("_id", "uuid NOT NULL", "id of the record"),
    OwnColumn("_provider", "integer NOT NULL", "`number` of the provider"),
    OwnColumn("_catalog", "bigint NOT NULL", "`number` of the catalog that ended the state"),
    OwnColumn("_valid_from", "timestamptz NOT NULL", "time when the state became current"),
    OwnColumn("_valid_to", "timestamptz NOT NULL", "time when the state ended"),
    OwnColumn("_change", f"text NOT NULL CHECK (_change IN {CHANGES})", "`changed` or `removed`"),
)


def create_statements(kind: KindDefinition) -> list[str]:
    """Return the statements that create both tables of *kind*."""
    fields = [f'"{name}" {type_}' for name, type_ in kind.columns]
    records = [f"{column.name} {column.definition}" for column in RECORD_COLUMNS]
    versions = [f"{column.name} {column.definition}" for column in VERSION_COLUMNS]
    versions.append("PRIMARY KEY (_id, _valid_from)")
    return [
        f"CREATE TABLE {kind.table} (\n    {_lines([*fields, *records])})",
        f"CREATE TABLE {kind.versions_table} (\n    {_lines([*fields, *versions])})",
        f"CREATE INDEX ON {kind.versions_table} (_valid_to)",
    ]


def column_names(kind: KindDefinition, table: str = "") -> str:
    """Return the columns of *kind* that views show, separated by commas."""
    prefix = f"{table}." if table else ""
    return ", ".join(f'{prefix}"{name}"' for name, _ in kind.columns)


def json_value(name: str, sql_type: str, data: str = "data") -> str:
    """Return the SQL expression of a field's value in the jsonb expression *data*."""
    if sql_type == "text":
        return f"{data} ->> '{name}'"
    if sql_type == "jsonb":
        return f"nullif({data} -> '{name}', 'null'::jsonb)"
    if sql_type == "interval":
        return f"make_interval(secs => ({data} ->> '{name}')::double precision)"
    return f"({data} ->> '{name}')::{sql_type}"


def record_tables(connection: Connection) -> list[str]:
    """Return the names of all tables in the schema of the record tables."""
    found = rows(
        connection,
        "SELECT tablename AS name FROM pg_tables WHERE schemaname = :schema",
        schema=RECORDS_SCHEMA,
    )
    return [table["name"] for table in found]


def stored_columns(connection: Connection, kinds: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return the fields in the table of each of *kinds* with their SQL types, in order.

    Fields that no declaration has any more are among them. Kinds without a table are left out.
    """
    found = rows(
        connection,
        """SELECT c.relname AS kind, a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type
           FROM pg_class c LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
               AND NOT a.attisdropped AND NOT starts_with(a.attname, '_')
           WHERE c.relnamespace = to_regnamespace(:schema) AND c.relkind = 'r'
             AND c.relname = ANY(CAST(:kinds AS text[])) ORDER BY 1, a.attnum""",
        schema=RECORDS_SCHEMA,
        kinds=list(kinds),
    )
    tables: dict[str, dict[str, str]] = {}
    for column in found:
        fields = tables.setdefault(column["kind"], {})
        if column["name"]:
            fields[column["name"]] = TYPE_ALIASES.get(column["type"], column["type"])
    return tables


def lock_against_changes(connection: Connection, kinds: Iterable[str]) -> None:
    """Keep `apply` from changing the tables of *kinds* until the transaction ends.

    Definitions that are read afterwards fit the tables.
    """
    if tables := ", ".join(f'{RECORDS_SCHEMA}."{kind}"' for kind in sorted(kinds)):
        execute(connection, f"LOCK TABLE {tables} IN ROW EXCLUSIVE MODE")


def _lines(parts: Sequence[str]) -> str:
    return ",\n    ".join(parts)
