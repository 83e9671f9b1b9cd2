"""Declared indexes of the record tables: built and dropped while loads and readers go on."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from psycopg2.errors import LockNotAvailable
from sqlalchemy import Connection, Engine, exc

from catlog_scrapy.db.session import is_pooled, without_settings
from catlog_scrapy.db.watchdog import extend_timeout
from catlog_scrapy.exceptions import NotPossible
from catlog_scrapy.records.sql_names import MAX_NAME_BYTES
from catlog_scrapy.store.definitions import KindDefinition
from catlog_scrapy.store.record_tables.layout import RECORDS_SCHEMA
from catlog_scrapy.store.sql import execute, row, rows

# A build waits for transactions that began before it. Nobody waits for the build meanwhile.
BUILD_LOCK_TIMEOUT_S = 60
# Comment of an index that the resources of a project declare, before the project's name.
RESOURCES_COMMENT = "catlog resources "

# Columns of a kind's view, and the columns of its table.
TIME_COLUMNS = {"created_at": "_created_at", "updated_at": "_updated_at"}

# Fields of an index, in order.
Fields = tuple[str, ...]


@dataclass(frozen=True)
class TableIndex:
    """Index of a kind's table of current records. `is_valid` is false after a broken build.

    `project` names the project whose resources declare the index; it is "" for the kind's own.
    """

    kind: str
    fields: Fields
    project: str = ""
    is_valid: bool = True

    @property
    def name(self) -> str:
        """The index's name; a name that would be too long ends with a hash."""
        name = f"{self.kind}_by_{'_'.join(self.shown)}"
        if len(name) <= MAX_NAME_BYTES:
            return name
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        return f"{name[: MAX_NAME_BYTES - 9]}_{digest}"

    @property
    def shown(self) -> tuple[str, ...]:
        """The columns as the views name them."""
        return tuple(
            field.removeprefix("_") if field in TIME_COLUMNS.values() else field
            for field in self.fields
        )

    @property
    def columns(self) -> str:
        """The columns as SQL."""
        return ", ".join(f'"{name}"' for name in self.fields)

    def __str__(self) -> str:
        return f"index {self.kind} ({', '.join(self.shown)})"


@dataclass(frozen=True)
class IndexPlan:
    """Indexes to build and to drop. Broken ones of those to build are dropped first."""

    built: tuple[TableIndex, ...]
    dropped: tuple[TableIndex, ...]
    broken: tuple[TableIndex, ...]

    def lines(self) -> Iterator[tuple[str, str]]:
        """Yield the sign (`+`, `-`) and description of each change."""
        yield from (("+", str(index)) for index in self.built)
        yield from (("-", str(index)) for index in self.dropped)


def kind_indexes(kind: KindDefinition) -> list[TableIndex]:
    """Return the indexes that *kind* declares: its own, and those that check its constraints."""
    return [
        TableIndex(kind.name, tuple(TIME_COLUMNS.get(name, name) for name in fields))
        for fields in dict.fromkeys((*kind.indexes, *kind.unique))
    ]


def create_index_statement(index: TableIndex, *, concurrently: bool = False) -> str:
    """Return the statement that builds *index*: of current records, which the views show.

    The condition lets PostgreSQL answer from the index alone.
    """
    # The index of a new table exists already.
    mode = " CONCURRENTLY IF NOT EXISTS" if concurrently else ""
    return (
        f'CREATE INDEX{mode} "{index.name}" ON records."{index.kind}" ({index.columns})'
        " WHERE _removed_at IS NULL"
    )


def plan_indexes(
    connection: Connection,
    kinds: Iterable[KindDefinition],
    resource_indexes: Iterable[TableIndex],
    project: str,
) -> IndexPlan:
    """Compare the indexes that exist with those that *kinds* and resources of *project* declare.

    Indexes of other projects' resources stay, and so do indexes that catlog has not built.
    """
    wanted = {index.name: index for index in resource_indexes}
    wanted |= {index.name: index for kind in kinds for index in kind_indexes(kind)}
    existing = {index.name: index for index in existing_indexes(connection)}
    foreign = {name for name, index in existing.items() if index.project not in ("", project)}
    return IndexPlan(
        built=tuple(
            index
            for name, index in sorted(wanted.items())
            if name not in existing or not existing[name].is_valid
        ),
        dropped=tuple(
            index
            for name, index in sorted(existing.items())
            if name not in wanted and name not in foreign
        ),
        broken=tuple(
            index
            for name, index in sorted(existing.items())
            if name in wanted and not index.is_valid
        ),
    )


def existing_indexes(connection: Connection) -> list[TableIndex]:
    """Return catlog's indexes of all tables of current records, broken ones included."""
    found = rows(
        connection,
        """SELECT t.relname AS kind, i.relname AS name, x.indisvalid AS is_valid,
               ARRAY(SELECT a.attname::text FROM unnest(x.indkey) WITH ORDINALITY AS k (number, n)
                     JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = k.number
                     ORDER BY k.n) AS fields,
               coalesce(obj_description(i.oid, 'pg_class'), '') AS comment
           FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
           JOIN pg_class t ON t.oid = x.indrelid
           WHERE t.relnamespace = to_regnamespace(:schema) ORDER BY i.relname""",
        schema=RECORDS_SCHEMA,
    )
    indexes = []
    for column in found:
        project = column["comment"].removeprefix(RESOURCES_COMMENT)
        is_of_resource = column["comment"].startswith(RESOURCES_COMMENT)
        index = TableIndex(
            column["kind"],
            tuple(column["fields"]),
            project if is_of_resource else "",
            column["is_valid"],
        )
        if column["name"] == index.name:
            indexes.append(index)
    return indexes


def resource_indexes(
    view: str,
    filters: Iterable[str],
    order: Iterable[str],
    kinds: Mapping[str, KindDefinition],
    project: str,
) -> tuple[list[TableIndex], list[str]]:
    """Return the indexes on columns of a resource's view, and a message for each mistake.

    Pages in an order end with the id of the record, so the index does, too.
    """
    kind = kinds.get(view)
    if kind is None:
        return [], [f'"{view}" is not the view of a kind; declare `index` for the kinds it reads']
    types = {**dict(kind.fields), **dict.fromkeys(TIME_COLUMNS, "timestamptz")}
    found: list[TableIndex] = []
    mistakes: list[str] = []
    wanted = [*((column, ()) for column in filters), *((column, ("_id",)) for column in order)]
    for column, further in wanted:
        if types.get(column, "jsonb") == "jsonb":
            mistakes.append(f'"{column}" is not a column of "{view}" that an index can hold')
        else:
            fields = (TIME_COLUMNS.get(column, column), *further)
            found.append(TableIndex(view, fields, project))
    return found, mistakes


def apply_indexes(engine: Engine, plan: IndexPlan) -> None:
    """Drop and build indexes, one after the other, while readers and publishers go on.

    Raises NotPossible if older transactions keep a build from its end.
    """
    if not (plan.built or plan.dropped):
        return
    with _patient_connection(engine) as connection:
        for index in (*plan.dropped, *plan.broken):
            drop = f'DROP INDEX CONCURRENTLY IF EXISTS records."{index.name}"'
            _change(connection, index, drop)
        for index in plan.built:
            _change(connection, index, create_index_statement(index, concurrently=True))
            if index.project:
                comment = f"{RESOURCES_COMMENT}{index.project}"
                execute(connection, f"COMMENT ON INDEX records.\"{index.name}\" IS '{comment}'")


def _change(connection: Connection, index: TableIndex, statement: str) -> None:
    """Build or drop *index*. A build that fails leaves a broken index, as a killed one does."""
    try:
        execute(connection, statement)
    except exc.OperationalError as error:
        if not isinstance(error.orig, LockNotAvailable):
            raise
        raise NotPossible(
            f"{index} waits for older transactions (a long query?); end them, and run apply again."
        ) from error


@contextmanager
def _patient_connection(engine: Engine) -> Iterator[Connection]:
    """Open a connection without transactions, whose statements may take any time.

    Behind a pooler the server's own time-outs hold: without a transaction, nothing can be set for
    a statement there.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        driver = connection.connection.driver_connection
        if is_pooled(driver):
            without_settings(driver)
        else:
            execute(connection, "SET statement_timeout = 0")
            execute(connection, f"SET lock_timeout = '{BUILD_LOCK_TIMEOUT_S}s'")
        extend_timeout(driver, float("inf"))
        try:
            yield connection
        finally:
            connection.invalidate()


def refused_constraints(
    connection: Connection,
    kinds: Iterable[KindDefinition],
    former: Mapping[str, KindDefinition],
) -> list[str]:
    """Return a message for each new constraint of *kinds* that current records violate."""
    refused = []
    for kind in kinds:
        known = former.get(kind.name)
        for fields in kind.unique if known else ():
            if (
                known
                and fields not in known.unique
                and (found := _duplicate(connection, kind, fields))
            ):
                refused.append(
                    f'records of "{kind.name}" share {found}; load unique values before you'
                    " declare them unique"
                )
    return refused


def _duplicate(connection: Connection, kind: KindDefinition, fields: Fields) -> str | None:
    columns = ", ".join(f'"{name}"' for name in fields)
    given = " AND ".join(f'"{name}" IS NOT NULL' for name in fields)
    found = row(
        connection,
        f"""SELECT {columns} FROM {kind.table} WHERE _removed_at IS NULL AND {given}
            GROUP BY _provider, {columns} HAVING count(*) > 1 LIMIT 1""",
    )
    return _shown(found) if found else None


def changed_duplicate(
    connection: Connection, kind: KindDefinition, provider: int, catalog: int
) -> str | None:
    """Return the values of a constraint that a record of *catalog* shares with another record.

    NULL differs from NULL, as in a unique index of PostgreSQL.
    """
    for fields in kind.unique:
        columns = ", ".join(f'changed."{name}"' for name in fields)
        same = " AND ".join(f'other."{name}" = changed."{name}"' for name in fields)
        found = row(
            connection,
            f"""SELECT {columns} FROM {kind.table} changed
                WHERE changed._catalog = :catalog AND changed._provider = :provider
                  AND changed._removed_at IS NULL AND EXISTS (
                      SELECT 1 FROM {kind.table} other
                      WHERE {same} AND other._provider = :provider
                        AND other._removed_at IS NULL AND other._id <> changed._id)
                LIMIT 1""",
            provider=provider,
            catalog=catalog,
        )
        if found:
            return _shown(found)
    return None


def _shown(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {str(value)[:60]!r}" for name, value in values.items())
