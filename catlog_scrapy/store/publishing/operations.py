"""Publishing of one operation: its results become changes of current records."""

import datetime as dt
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg2.errors import ProgramLimitExceeded
from sqlalchemy import Connection, exc

from catlog_scrapy.db.engine import reason
from catlog_scrapy.exceptions import PublishRefused
from catlog_scrapy.store.definitions import KindDefinition
from catlog_scrapy.store.publishing.cursors import CursorRange, move_cursors, read_cursor_range
from catlog_scrapy.store.publishing.duplicate_limit import refuse_too_many_duplicates
from catlog_scrapy.store.publishing.merging import MergeValues, PartMarks, UnknownKey, merge
from catlog_scrapy.store.publishing.readings import Reading, move_behind_mark, read_readings
from catlog_scrapy.store.publishing.removal_limit import refuse_too_many_removals
from catlog_scrapy.store.schemes import all_kinds
from catlog_scrapy.store.sql import one, rows, run

# Changes that readers see.
VISIBLE_CHANGES = frozenset({"created", "changed", "removed", "restored"})
# Changes that are not counted: the records belong to another part or operation than before.
SILENT_CHANGES = frozenset({"moved"})


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


@dataclass(frozen=True)
class _ScopeState:
    """The operation's scope, with the high-water mark of all scopes that wrote its kinds."""

    id: UUID
    number: int
    high_water_mark: dt.datetime | None

    def is_later_than(self, as_of: dt.datetime) -> bool:
        """Return whether a full snapshot that was read after *as_of* is published."""
        return self.high_water_mark is not None and self.high_water_mark > as_of


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


def publish_operation(
    connection: Connection, load: CatalogLoad, operation: PublishedOperation
) -> OperationChanges:
    """Publish the results of one operation. Raises PublishRefused."""
    definitions = all_kinds(connection)
    kinds = [definitions[kind] for kind in operation.kinds]
    scope = _open_scope(connection, load.provider, operation)
    cursor_range = None
    if operation.mode == "incremental":
        cursor_range = read_cursor_range(connection, load.id, operation.id, scope.id)
    own_as_of = None if cursor_range else load.own_as_of
    readings = read_readings(connection, load.id, operation.id, own_as_of=own_as_of)
    if own_as_of is None:
        readings = move_behind_mark(
            connection,
            readings,
            scope.high_water_mark,
            provider=load.provider,
            kinds=kinds,
        )
    superseded = set(cursor_range.superseded) if cursor_range else set()
    valid = [reading for reading in readings if reading.part not in superseded]
    # A newer full snapshot decided about all records of the others, absent records included.
    fresh = [reading for reading in valid if not scope.is_later_than(reading.as_of)]
    received = sum(reading.accepted for reading in valid)
    counts = Counter({"received": received, "duplicates": 0})
    if stale := received - sum(reading.accepted for reading in fresh):
        counts["stale"] = stale
    earliest = min((reading.as_of for reading in readings), default=load.now)
    if not fresh:
        return OperationChanges(counts, earliest)
    is_complete = len(fresh) == len(readings)
    values = _merge_values(load, operation, scope, readings, cursor_range, is_complete=is_complete)
    marks = _part_marks(connection, load.provider, values.earliest)
    changed_kinds, is_outdated = _merge(
        connection,
        operation,
        values,
        counts,
        kinds=kinds,
        readings=fresh,
        marks=marks,
    )
    if values.removes:
        _set_marks(connection, scope, values.earliest, fresh)
    # Of an outdated result it is unknown which load read the source later. The cursor then stays,
    # so that the next load reads the records again.
    if cursor_range and not is_outdated:
        stays = {reading.part for reading in readings} - {reading.part for reading in fresh}
        move_cursors(connection, load.id, operation.id, scope.id, stays)
    return OperationChanges(counts, earliest, changed_kinds)


def _merge_values(
    load: CatalogLoad,
    operation: PublishedOperation,
    scope: _ScopeState,
    readings: Sequence[Reading],
    cursor_range: CursorRange | None,
    *,
    is_complete: bool,
) -> MergeValues:
    """Return the parameters of the merge; *is_complete* says that all readings are published."""
    if cursor_range:
        # A read from the beginning is a snapshot, whatever the operation's mode.
        is_snapshot = cursor_range.is_full
    else:
        is_snapshot = load.is_full and operation.mode == "snapshot"
    removes = is_snapshot and is_complete
    earliest = min(reading.as_of for reading in readings)
    # A full load has each part for which there is a record now.
    has_all_parts = load.is_full and not load.is_backfill and isinstance(operation.for_each, str)
    return MergeValues(
        provider=load.provider_number,
        scope=scope.number,
        catalog=load.number,
        now=load.now,
        earliest=earliest,
        removes=removes,
        leaves=has_all_parts and not scope.is_later_than(earliest),
        refreshes=operation.refresh is not None,
        all_parts=[reading.part for reading in readings],
    )


def _open_scope(
    connection: Connection, provider_id: UUID, operation: PublishedOperation
) -> _ScopeState:
    """Return the operation's scope; the first publish inserts it.

    A renamed operation hands its records on, so the high-water marks of all scopes that wrote its
    kinds count.
    """
    identity = {
        "provider": provider_id,
        "scheme": operation.scheme,
        "operation": operation.name,
    }
    run(
        connection,
        """INSERT INTO catlog.scope (provider_id, scheme_name, operation_name)
           VALUES (:provider, :scheme, :operation) ON CONFLICT DO NOTHING""",
        **identity,
    )
    found = one(
        connection,
        """SELECT own.id, own.number, (
               SELECT max(s.high_water_mark) FROM catlog.scope s
               WHERE s.provider_id = :provider AND EXISTS (
                   SELECT 1 FROM catlog.kind k
                   JOIN catlog.catalog_scheme_operation w ON w.id = k.operation_id
                   JOIN catlog.catalog_scheme v ON v.id = w.scheme_id
                   WHERE v.provider_id = s.provider_id AND v.name = s.scheme_name
                     AND w.name = s.operation_name AND k.name = ANY(:kinds))) AS high_water_mark
           FROM catlog.scope own
           WHERE own.provider_id = :provider AND own.scheme_name = :scheme
             AND own.operation_name = :operation""",
        kinds=operation.kinds,
        **identity,
    )
    return _ScopeState(**found)


def _merge(
    connection: Connection,
    operation: PublishedOperation,
    values: MergeValues,
    counts: Counter[str],
    *,
    kinds: Sequence[KindDefinition],
    readings: Sequence[Reading],
    marks: PartMarks,
) -> tuple[frozenset[str], bool]:
    """Merge the results into the records and add to *counts*.

    Returns the kinds whose readers see a change, and whether a result was outdated. Raises
    PublishRefused.
    """
    changed_kinds: set[str] = set()
    received, present, outdated = 0, 0, 0
    for kind in kinds:
        try:
            merged = merge(connection, kind, readings, marks, values)
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
        received += merged.received
        present += merged.present
        outdated += merged.outdated
        counts["duplicates"] += merged.duplicates
        counts.update({k: n for k, n in merged.changes.items() if k not in SILENT_CHANGES})
        if any(merged.changes[change] for change in VISIBLE_CHANGES):
            changed_kinds.add(kind.name)
    if received != sum(reading.accepted for reading in readings):
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
    refuse_too_many_removals(
        operation.name,
        operation.tolerate,
        removed=counts["removed"],
        present=present,
        is_snapshot=values.removes,
    )
    return frozenset(changed_kinds), outdated > 0


def _part_marks(connection: Connection, provider: UUID, after: dt.datetime) -> PartMarks:
    """Return the provider's part marks later than *after*; a mark before decides nothing."""
    found = rows(
        connection,
        """SELECT s.number AS scope, m.part, m.as_of FROM catlog.part_mark m
           JOIN catlog.scope s ON s.id = m.scope_id
           WHERE s.provider_id = :provider AND m.as_of > :after""",
        provider=provider,
        after=after,
    )
    return PartMarks(
        mark_scopes=[mark["scope"] for mark in found],
        mark_parts=[mark["part"] for mark in found],
        mark_as_ofs=[mark["as_of"] for mark in found],
    )


def _set_marks(
    connection: Connection, scope: _ScopeState, earliest: dt.datetime, readings: Sequence[Reading]
) -> None:
    """Store that a full load has decided about all records.

    About absent ones it has as of its *earliest* reading, about the records of each part as of the
    reading of the part.
    """
    run(
        connection,
        "UPDATE catlog.scope SET high_water_mark = :earliest WHERE id = :scope",
        earliest=earliest,
        scope=scope.id,
    )
    run(
        connection,
        "DELETE FROM catlog.part_mark WHERE scope_id = :scope AND as_of <= :earliest",
        earliest=earliest,
        scope=scope.id,
    )
    later = [reading for reading in readings if reading.as_of > earliest]
    if not later:
        return
    run(
        connection,
        """INSERT INTO catlog.part_mark AS m (scope_id, part, as_of)
           SELECT :scope, given.* FROM
               unnest(CAST(:parts AS text[]), CAST(:as_ofs AS timestamptz[])) AS given (part, as_of)
           ON CONFLICT (scope_id, part) DO UPDATE SET as_of = greatest(m.as_of, excluded.as_of)""",
        scope=scope.id,
        parts=[reading.part for reading in later],
        as_ofs=[reading.as_of for reading in later],
    )
