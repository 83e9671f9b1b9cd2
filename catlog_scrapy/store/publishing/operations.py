"""Publishing of one operation: its results become changes of current records."""

import datetime as dt
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

from psycopg2.errors import ProgramLimitExceeded
from sqlalchemy import Connection, exc

from catlog_scrapy.db.engine import reason
from catlog_scrapy.exceptions import PublishRefused
from catlog_scrapy.store.definitions import KindDefinition
from catlog_scrapy.store.publishing.cursors import (
    CursorRange,
    delete_cursors,
    move_cursors,
    read_cursor_range,
)
from catlog_scrapy.store.publishing.duplicate_limit import refuse_too_many_duplicates
from catlog_scrapy.store.publishing.merging import (
    MergeValues,
    OtherWriters,
    RivalReading,
    UnknownKey,
    merge,
)
from catlog_scrapy.store.publishing.readings import Reading, move_behind_mark, read_readings
from catlog_scrapy.store.publishing.removal_limit import explain_by_drops, refuse_too_many_removals
from catlog_scrapy.store.publishing.scopes import (
    PartMark,
    ScopeState,
    open_scope,
    read_part_marks,
    set_marks,
)
from catlog_scrapy.store.record_tables.layout import lock_against_changes
from catlog_scrapy.store.schemes import all_kinds
from catlog_scrapy.store.sql import rows, scalar

# Changes that readers see.
VISIBLE_CHANGES = frozenset({"created", "changed", "removed", "restored"})
# Changes that are not counted: the records belong to another part, or to a renamed operation.
SILENT_CHANGES = frozenset({"reassigned"})


@dataclass(frozen=True)
class CatalogLoad:
    """The catalog that is published, as `number` in the record tables, like its provider.

    `now` is the time of all its changes. `own_as_of` is the time for which its data is valid if its
    arguments contain its due time; otherwise that is the time of each reading.
    """

    id: UUID
    number: int
    provider: UUID
    provider_number: int
    own_as_of: dt.datetime | None
    is_full: bool
    is_backfill: bool
    now: dt.datetime


@dataclass(frozen=True)
class PublishedOperation:
    """An operation of the catalog, with the `kinds` of records that it answers for."""

    id: UUID
    name: str
    scheme: str
    mode: str
    for_each: str | list[str] | None
    tolerate: Mapping[str, float]
    refresh: Mapping[str, Any] | None
    kinds: list[str]


@dataclass(frozen=True)
class OperationChanges:
    """Numbers of records by change, and the kinds whose readers see a change.

    `earliest` is the time of the earliest reading.
    """

    counts: Mapping[str, int]
    earliest: dt.datetime | None = None
    changed_kinds: frozenset[str] = frozenset()


class _MergedOperation(NamedTuple):
    """Counts of the merge of all kinds, and the kinds whose readers see a change.

    `is_outdated` says that a newer load had contradicted a result already.
    """

    counts: Mapping[str, int]
    changed_kinds: frozenset[str]
    is_outdated: bool


class _ExplainedByDrops(Exception):
    """Records are missing because pipelines dropped them. Raised and caught in this module."""

    def __init__(self, missing: int) -> None:
        super().__init__(missing)
        self.missing = missing


@dataclass(frozen=True)
class PreparedOperation:
    """An operation of the catalog, with what its publish has to know before any change.

    A newer full snapshot decided about all records of other readings than `fresh`, absent records
    included. `received` counts the rows of all readings that are valid.
    """

    operation: PublishedOperation
    kinds: Sequence[KindDefinition]
    scope: ScopeState
    cursor_range: CursorRange | None
    readings: Sequence[Reading]
    fresh: Sequence[Reading]
    received: int

    def earliest(self, default: dt.datetime) -> dt.datetime:
        """Return the time of the earliest reading."""
        return min((reading.as_of for reading in self.readings), default=default)


def operations_of(connection: Connection, catalog_id: UUID) -> list[PublishedOperation]:
    """Return the catalog's operations, each with the kinds of records that it answers for.

    These are the kinds that the operation writes, and kinds that other versions of the operation
    wrote unless another operation writes them now: a kind may move between operations.
    """
    found = rows(
        connection,
        """SELECT o.id, o.name, s.name AS scheme, o.mode, o.for_each, o.tolerate, o.refresh,
               ARRAY(SELECT k.name FROM catlog.kind k
                     JOIN catlog.catalog_scheme_operation w ON w.id = k.operation_id
                     JOIN catlog.catalog_scheme v ON v.id = w.scheme_id
                     WHERE v.provider_id = s.provider_id GROUP BY k.name
                     HAVING bool_or(w.id = o.id)
                         OR bool_and(v.name = s.name AND w.name = o.name)) AS kinds
           FROM catlog.catalog_scheme_operation o
           JOIN catlog.catalog_scheme s ON s.id = o.scheme_id
           WHERE o.id IN (SELECT operation_id FROM catlog.catalog_scheme_operation_instance
                          WHERE catalog_id = :id)
           ORDER BY o.name""",
        id=catalog_id,
    )
    return [PublishedOperation(**operation) for operation in found]


def publish_operations(connection: Connection, load: CatalogLoad) -> list[OperationChanges]:
    """Publish the results of all operations of a catalog. Raises PublishRefused.

    All are prepared before the first changes anything: of a key that several of them bring, the
    last reading decides.
    """
    operations = operations_of(connection, load.id)
    lock_against_changes(connection, {kind for found in operations for kind in found.kinds})
    definitions = all_kinds(connection)
    prepared = [
        prepare_operation(connection, load, operation, definitions) for operation in operations
    ]
    marks = read_part_marks(connection, load.provider)
    return [
        publish_operation(connection, load, one, rivals=prepared, marks=marks) for one in prepared
    ]


def prepare_operation(
    connection: Connection,
    load: CatalogLoad,
    operation: PublishedOperation,
    definitions: Mapping[str, KindDefinition],
) -> PreparedOperation:
    """Read the state of an operation and its readings."""
    kinds = [definitions[kind] for kind in operation.kinds]
    scope = open_scope(connection, load.provider, operation.scheme, operation.name, operation.kinds)
    cursor_range = None
    if operation.mode == "incremental":
        cursor_range = read_cursor_range(connection, load.id, operation.id, scope.id)
    own_as_of = None if cursor_range else load.own_as_of
    readings = read_readings(connection, load.id, operation.id, own_as_of=own_as_of)
    if own_as_of is None:
        readings = move_behind_mark(
            connection, readings, scope.newest_mark, provider=load.provider, kinds=kinds
        )
    superseded = set(cursor_range.superseded) if cursor_range else set()
    valid = [reading for reading in readings if reading.part not in superseded]
    return PreparedOperation(
        operation,
        kinds,
        scope,
        cursor_range,
        readings,
        fresh=[reading for reading in valid if not scope.is_later_than(reading.as_of)],
        received=sum(reading.accepted for reading in valid),
    )


def publish_operation(
    connection: Connection,
    load: CatalogLoad,
    prepared: PreparedOperation,
    *,
    rivals: Sequence[PreparedOperation],
    marks: Sequence[PartMark],
) -> OperationChanges:
    """Publish the results of one operation. Raises PublishRefused."""
    scope, fresh = prepared.scope, prepared.fresh
    counts = Counter({"received": prepared.received, "duplicates": 0})
    if stale := prepared.received - sum(reading.accepted for reading in fresh):
        counts["stale"] = stale
    earliest = prepared.earliest(load.now)
    if not fresh:
        return OperationChanges(counts, earliest)
    values = _merge_values(connection, load, prepared)
    merge_all = partial(_merge, connection, prepared, rivals=rivals, marks=marks)
    try:
        with connection.begin_nested():
            merged = merge_all(values)
    except _ExplainedByDrops as explained:
        values = replace(values, removes=False)
        counts["kept"] = explained.missing
        merged = merge_all(values)
    counts.update(merged.counts)
    if values.removes:
        set_marks(connection, scope.id, earliest, fresh)
    if values.leaves:
        delete_cursors(connection, scope.id, values.all_parts)
    # Of an outdated result it is unknown which load read the source later. The cursor then stays,
    # so that the next load reads the records again.
    if prepared.cursor_range and not merged.is_outdated:
        stays = {reading.part for reading in prepared.readings} - {r.part for r in fresh}
        move_cursors(connection, load.id, prepared.operation.id, scope.id, stays)
    return OperationChanges(counts, earliest, merged.changed_kinds)


def _merge_values(
    connection: Connection, load: CatalogLoad, prepared: PreparedOperation
) -> MergeValues:
    """Return the parameters of the merge."""
    operation, readings = prepared.operation, prepared.readings
    if prepared.cursor_range:
        # A read from the beginning is a snapshot, whatever the operation's mode.
        is_snapshot = prepared.cursor_range.is_full
    else:
        is_snapshot = load.is_full and operation.mode == "snapshot"
    earliest = prepared.earliest(load.now)
    # A full load has each part that `for_each` makes now.
    has_all_parts = load.is_full and not load.is_backfill and operation.for_each is not None
    return MergeValues(
        provider=load.provider_number,
        scope=prepared.scope.number,
        catalog=load.number,
        now=load.now,
        earliest=earliest,
        removes=is_snapshot and len(prepared.fresh) == len(readings),
        leaves=has_all_parts
        and not prepared.scope.is_later_than(earliest)
        and not _is_newer_load_published(connection, load, operation, earliest),
        refreshes=operation.refresh is not None,
        all_parts=[reading.part for reading in readings],
    )


def _is_newer_load_published(
    connection: Connection,
    load: CatalogLoad,
    operation: PublishedOperation,
    earliest: dt.datetime,
) -> bool:
    """Return whether a full load that read after *earliest* knew the parts better."""
    return bool(
        scalar(
            connection,
            """SELECT EXISTS (
                   SELECT 1 FROM catlog.catalog c
                   JOIN catlog.catalog_scheme s ON s.id = c.scheme_id
                   JOIN catlog.catalog_scheme_operation o ON o.scheme_id = s.id
                   WHERE s.provider_id = :provider AND s.name = :scheme AND o.name = :operation
                     AND c.state = 'loaded' AND c.is_full AND c.origin <> 'backfill'
                     AND c.as_of > :earliest AND c.id <> :catalog)""",
            provider=load.provider,
            scheme=operation.scheme,
            operation=operation.name,
            earliest=earliest,
            catalog=load.id,
        )
    )


def _merge(
    connection: Connection,
    prepared: PreparedOperation,
    values: MergeValues,
    *,
    rivals: Sequence[PreparedOperation],
    marks: Sequence[PartMark],
) -> _MergedOperation:
    """Merge the results into the records of all kinds.

    Raises PublishRefused, and _ExplainedByDrops for a load that should remove nothing.
    """
    operation = prepared.operation
    counts: Counter[str] = Counter()
    changed_kinds: set[str] = set()
    received, present, removed, outdated = 0, 0, 0, 0
    for kind in prepared.kinds:
        others = OtherWriters(
            siblings=prepared.scope.siblings[kind.name],
            abandoned=prepared.scope.abandoned,
            # A mark before the earliest reading decides nothing.
            marks=[mark for mark in marks if mark.as_of > values.earliest],
            rivals=_rival_readings(kind, prepared, rivals),
        )
        with _refusals(operation, kind):
            merged = merge(connection, kind, prepared.fresh, others, values)
        received += merged.received
        present += merged.present
        removed += merged.changes["removed"] - merged.abandoned
        outdated += merged.outdated
        counts["duplicates"] += merged.duplicates
        if merged.taken:
            counts["moved"] += merged.taken
        counts.update({k: n for k, n in merged.changes.items() if k not in SILENT_CHANGES})
        if any(merged.changes[change] for change in VISIBLE_CHANGES):
            changed_kinds.add(kind.name)
    if received != sum(reading.accepted for reading in prepared.fresh):
        raise PublishRefused(
            f"{operation.name} has lost rows that its attempts had when they were done. Make a new"
            " catalog with scrapy load."
        )
    refuse_too_many_duplicates(
        operation.name,
        operation.tolerate,
        duplicates=counts["duplicates"],
        received=received,
    )
    dropped = sum(reading.dropped for reading in prepared.fresh)
    if values.removes and explain_by_drops(removed, dropped, prepared.scope.dropped):
        raise _ExplainedByDrops(removed)
    refuse_too_many_removals(
        operation.name,
        operation.tolerate,
        removed=removed,
        present=present,
        dropped=dropped,
        is_snapshot=values.removes,
    )
    return _MergedOperation(counts, frozenset(changed_kinds), outdated > 0)


@contextmanager
def _refusals(operation: PublishedOperation, kind: KindDefinition) -> Iterator[None]:
    """Raise PublishRefused for results of *kind* that cannot be merged, with the remedy."""
    try:
        yield
    except UnknownKey as error:
        raise PublishRefused(
            f"{operation.name} yields Unchanged for a key without a record: the record was"
            " never loaded; run a full load once."
        ) from error
    except exc.OperationalError as error:
        if not isinstance(error.orig, ProgramLimitExceeded):
            raise
        raise PublishRefused(
            f"{operation.name} has a record that PostgreSQL cannot hold: {reason(error)}."
            " Shorten the fields in the spider, or declare fewer fields or indexes."
        ) from error
    except exc.DataError as error:
        raise PublishRefused(
            f"{operation.name} has a value that does not fit the table of {kind.name}:"
            f" {reason(error)}. The record type has changed since; make a new catalog with"
            " scrapy load."
        ) from error


def _rival_readings(
    kind: KindDefinition, prepared: PreparedOperation, operations: Sequence[PreparedOperation]
) -> list[RivalReading]:
    """Return the readings of the catalog's other operations that write *kind*."""
    own = operations.index(prepared)
    return [
        RivalReading(reading.instance, reading.attempt, reading.accepted, reading.as_of, rank - own)
        for rank, other in enumerate(operations)
        for reading in other.fresh
        if rank != own and kind in other.kinds
    ]
