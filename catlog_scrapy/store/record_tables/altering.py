"""Creation and change of the record tables, for `scrapy apply`.

Fields are added and converted in place. A field that is no longer declared stays in the tables, and
only the views leave it out.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection

from catlog_scrapy.store.definitions import VERSIONS_SUFFIX, KindDefinition
from catlog_scrapy.store.lock_timeouts import set_statement_timeout
from catlog_scrapy.store.record_tables.conversions import (
    Conversion,
    refused_values,
    set_time_zone,
)
from catlog_scrapy.store.record_tables.indexes import create_index_statement, kind_indexes
from catlog_scrapy.store.record_tables.layout import (
    CONVERTED_HASH,
    RECORDS_SCHEMA,
    create_statements,
    record_tables,
    stored_columns,
)
from catlog_scrapy.store.schemes import all_kinds
from catlog_scrapy.store.sql import execute, row

# A record without a hash has no content that a load could bring again.
_REHASHED = f"CASE WHEN _hash IS NOT NULL THEN uuid '{CONVERTED_HASH}' END"


@dataclass(frozen=True)
class TableChange:
    """Changes of the tables of a kind; all are created if `is_new`.

    `moved_in` are newly declared fields whose values the column `data` may hold, `moved_out` are
    fields that are no longer declared and whose values go to `data`.
    """

    kind: KindDefinition
    is_new: bool = False
    added: tuple[tuple[str, str], ...] = ()
    converted: tuple[Conversion, ...] = ()
    moved_in: tuple[Conversion, ...] = ()
    moved_out: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def lines(self) -> Iterator[tuple[str, str]]:
        """Yield the sign (`+`, `~`, `-`) and description of each changed column."""
        for name, type_ in self.added:
            yield "+", f"column {self.kind.name}.{name} {type_}"
        for change in self.converted:
            yield "~", f"column {self.kind.name}.{change.field}: {change.was} -> {change.now}"
        for name in self.removed:
            yield "-", f"column {self.kind.name}.{name}: the table keeps its values"


def plan_tables(
    connection: Connection,
    kinds: Iterable[KindDefinition],
    former: Mapping[str, KindDefinition],
) -> list[TableChange]:
    """Compare the tables of *kinds* with their definitions; return the changes.

    *former* are the stored definitions before this apply.
    """
    wanted = {kind.name: kind for kind in kinds}
    stored = stored_columns(connection, wanted)
    changes = [
        _plan(kind, stored.get(name), former.get(name, kind)) for name, kind in wanted.items()
    ]
    return [change for change in changes if change != TableChange(change.kind)]


def _plan(
    kind: KindDefinition, stored: Mapping[str, str] | None, former: KindDefinition
) -> TableChange:
    if stored is None:
        return TableChange(kind, is_new=True)
    added = tuple((name, type_) for name, type_ in kind.columns if name not in stored)
    columns, formerly = dict(kind.columns), dict(former.columns)
    removed = tuple(name for name in formerly if name not in columns and name in stored)
    has_data = former.foreign and stored.get("data") == "jsonb"
    return TableChange(
        kind,
        added=added,
        converted=tuple(
            Conversion(kind, name, f'"{name}"', stored[name], type_)
            for name, type_ in kind.columns
            if stored.get(name, type_) != type_
        ),
        moved_in=tuple(
            Conversion(kind, name, f"nullif(data -> '{name}', 'null')", "jsonb", type_)
            for name, type_ in kind.columns
            if has_data and (name not in stored or name not in formerly)
        ),
        moved_out=tuple(name for name in removed if kind.foreign),
        removed=removed,
    )


def refused_changes(connection: Connection, changes: Iterable[TableChange]) -> list[str]:
    """Return a message for each field with a stored value that does not convert to its new type.

    Publishers wait until the transaction ends; readers go on.
    """
    refused: list[str] = []
    for change in changes:
        conversions = (*change.converted, *change.moved_in)
        if conversions:
            set_statement_timeout(connection)
            set_time_zone(connection)
            tables = f"{change.kind.table}, {change.kind.versions_table}"
            execute(connection, f"LOCK TABLE {tables} IN SHARE ROW EXCLUSIVE MODE")
        for conversion in conversions:
            refused += refused_values(connection, conversion)
    return refused


def alter_tables(
    connection: Connection, changes: Iterable[TableChange], *, is_rehearsal: bool = False
) -> None:
    """Create and change the tables. Views must not read a column that is converted.

    A rehearsal, which is rolled back, spares the work on the rows.
    """
    for change in changes:
        if change.is_new:
            indexes = kind_indexes(change.kind)
            statements = [
                *create_statements(change.kind),
                *(create_index_statement(index) for index in indexes),
            ]
        else:
            statements = list(_alter_statements(change, is_rehearsal=is_rehearsal))
        for statement in statements:
            execute(connection, statement)


def _alter_statements(change: TableChange, *, is_rehearsal: bool) -> Iterator[str]:
    for table in (change.kind.table, change.kind.versions_table):
        is_current = table == change.kind.table
        columns = change.added
        actions: list[str] = []
        if is_rehearsal:
            columns += tuple((found.field, found.now) for found in change.converted)
            actions += [f'DROP COLUMN "{found.field}"' for found in change.converted]
        else:
            actions += [
                f'ALTER COLUMN "{found.field}" TYPE {found.now} USING {found.converted}'
                for found in change.converted
            ]
            if actions and is_current:
                # One rewrite of the table does both.
                held = " OR ".join(f'"{found.field}" IS NOT NULL' for found in change.converted)
                actions.append(
                    f"ALTER COLUMN _hash TYPE uuid USING CASE WHEN {held} THEN {_REHASHED}"
                    " ELSE _hash END"
                )
        if actions:
            yield f"ALTER TABLE {table} {', '.join(actions)}"
        if columns:
            added = ", ".join(f'ADD COLUMN "{name}" {type_}' for name, type_ in columns)
            yield f"ALTER TABLE {table} {added}"
        if is_rehearsal:
            continue
        rehash = f" _hash = {_REHASHED}," if is_current else ""
        for found in change.moved_in:
            yield (
                f'UPDATE {table} SET{rehash} "{found.field}" = {found.converted},'
                f" data = data - '{found.field}' WHERE data ? '{found.field}'"
            )
        for name in change.moved_out:
            yield (
                f"UPDATE {table} SET{rehash} data = coalesce(data, '{{}}')"
                f' || jsonb_build_object(\'{name}\', "{name}"), "{name}" = NULL'
                f' WHERE "{name}" IS NOT NULL'
            )


def drop_unused_tables(connection: Connection) -> None:
    """Drop the empty tables of unknown kinds: those of scheme versions that were never used."""
    kinds = all_kinds(connection)
    known = {name for kind in kinds for name in (kind, kind + VERSIONS_SUFFIX)}
    for name in set(record_tables(connection)) - known:
        table = f'{RECORDS_SCHEMA}."{name}"'
        if row(connection, f"SELECT 1 FROM {table} LIMIT 1") is None:
            execute(connection, f"DROP TABLE {table}")


def create_tables(connection: Connection, kinds: Iterable[KindDefinition]) -> None:
    """Create the missing tables and columns of *kinds*."""
    alter_tables(connection, plan_tables(connection, kinds, {}))
