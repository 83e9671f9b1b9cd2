"""Publishing of one operation: its results become changes of current records."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from catlog_scrapy.exceptions import PublishRefused
from catlog_scrapy.store.publishing.cursors import CursorRange, move_cursors, read_cursor_range
from catlog_scrapy.store.publishing.removal_limit import refuse_too_many_removals
from catlog_scrapy.store.sql import load_sql, one, rows, run, scalar

# Changes that readers see.
VISIBLE_CHANGES = frozenset({"created", "changed", "removed", "restored"})


@dataclass(frozen=True)
class CatalogLoad:
    """The catalog that is published. `now` is the time of all its changes."""

    id: UUID
    provider: UUID
    as_of: dt.datetime
    is_full: bool
    now: dt.datetime


@dataclass(frozen=True)
class PublishedOperation:
    """An operation of the catalog, with the `kinds` of records that it answers for."""

    id: UUID
    name: str
    scheme: str
    mode: str
    tolerate: Mapping[str, float]
    refresh: Mapping[str, Any] | None
    kinds: list[str]


@dataclass(frozen=True)
class PublishValues:
    """Parameters of the SQL statements that publish an operation.

    `removes` says that absent records are removed, `refreshes` that the time of reading is stored.
    The results of `superseded` parts are left out.
    """

    catalog: UUID
    operation: UUID
    provider: UUID
    scope: UUID
    kinds: list[str]
    as_of: dt.datetime
    now: dt.datetime
    removes: bool
    refreshes: bool
    superseded: list[str]


@dataclass(frozen=True)
class OperationChanges:
    """Numbers of records by change, and the kinds whose readers see a change."""

    counts: Mapping[str, int]
    changed_kinds: frozenset[str] = frozenset()


@dataclass(frozen=True)
class _ScopeState:
    """The operation's scope, with the high-water mark of all scopes that wrote its kinds."""

    id: UUID
    high_water_mark: dt.datetime | None


def operations_of(connection: Connection, catalog_id: UUID) -> list[PublishedOperation]:
    """Return the catalog's operations, each with the kinds of records that it answers for.

    These are the kinds that the operation writes, and kinds that other versions of the operation
    wrote unless another operation writes them now: a kind may move between operations.
    """
    found = rows(
        connection,
        """SELECT o.id, o.name, s.name AS scheme, o.mode, o.tolerate, o.refresh,
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
    scope = _open_scope(connection, load.provider, operation)
    cursor_range = None
    if operation.mode == "incremental":
        cursor_range = read_cursor_range(connection, load.id, operation.id, scope.id)
    values = _publish_values(load, operation, scope, cursor_range)
    counts = _count_received(connection, operation, values)
    if scope.high_water_mark is not None and values.as_of < scope.high_water_mark:
        # A newer full snapshot decided about all of these records, absent records included.
        return OperationChanges({**counts, "stale": counts["received"]})
    moves = cursor_range is not None and not _is_outdated(connection, values)
    changed_kinds = _merge(connection, operation, values, counts)
    if counts.get("removed"):
        refuse_too_many_removals(
            connection,
            operation.name,
            operation.tolerate,
            counts,
            provider=load.provider,
            kinds=operation.kinds,
            is_snapshot=values.removes,
        )
    if values.removes:
        run(
            connection,
            "UPDATE catlog.scope SET high_water_mark = :as_of WHERE id = :scope",
            as_of=values.as_of,
            scope=scope.id,
        )
    if cursor_range and moves:
        move_cursors(connection, load.id, operation.id, scope.id, cursor_range)
    return OperationChanges(counts, changed_kinds)


def _publish_values(
    load: CatalogLoad,
    operation: PublishedOperation,
    scope: _ScopeState,
    cursor_range: CursorRange | None,
) -> PublishValues:
    if cursor_range:
        # A read from the beginning is a snapshot, whatever the operation's mode.
        removes = cursor_range.is_full and not cursor_range.superseded
    else:
        removes = load.is_full and operation.mode == "snapshot"
    return PublishValues(
        catalog=load.id,
        operation=operation.id,
        provider=load.provider,
        scope=scope.id,
        kinds=operation.kinds,
        as_of=cursor_range.as_of if cursor_range else load.as_of,
        now=load.now,
        removes=removes,
        refreshes=operation.refresh is not None,
        superseded=cursor_range.superseded if cursor_range else [],
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
        """SELECT own.id, (
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


def _is_outdated(connection: Connection, values: PublishValues) -> bool:
    """Return whether a newer partial load stored other data for any of these records.

    Which of the two loads read the source later is unknown. The cursor then stays, so that the
    next load reads the records again.
    """
    return bool(scalar(connection, OUTDATED, **asdict(values)))


def _count_received(
    connection: Connection, operation: PublishedOperation, values: PublishValues
) -> dict[str, int]:
    """Count the received rows and the duplicate keys among them. Raises PublishRefused."""
    counts = dict(one(connection, COUNT_RECEIVED, **asdict(values)))
    if counts["received"] != scalar(connection, COUNT_ACCEPTED, **asdict(values)):
        raise PublishRefused(
            f"{operation.name} has lost rows that its attempts had when they were done. Make a new"
            " catalog with scrapy load."
        )
    return counts


def _merge(
    connection: Connection,
    operation: PublishedOperation,
    values: PublishValues,
    counts: dict[str, int],
) -> frozenset[str]:
    """Merge the results into the records, add to *counts*, and return the kinds that changed."""
    changes = rows(connection, MERGE_DISTINCT if counts["duplicates"] else MERGE, **asdict(values))
    if any(change["unknown"] for change in changes):
        raise PublishRefused(
            f"{operation.name} yields Unchanged for a key without a record: the record was never"
            " loaded; run a full load once."
        )
    for change in changes:
        counts[change["change"]] = counts.get(change["change"], 0) + change["records"]
    return frozenset(change["kind"] for change in changes if change["change"] in VISIBLE_CHANGES)


# Results of the done attempts. A doubled worker may add rows after the end of its attempt; their
# numbers, which start at 0, are not below the number of accepted rows.
RESULTS = """
    SELECT r.kind, r.key, r.data, r.seq, i.part FROM catlog.catalog_operation_instance_result r
    JOIN catlog.catalog_scheme_operation_instance i
        ON i.id = r.instance_id AND i.attempt = r.attempt
    JOIN catlog.instance_attempt a ON a.instance_id = i.id AND a.attempt = i.attempt
    WHERE i.catalog_id = :catalog AND i.operation_id = :operation AND i.state = 'done'
      AND r.seq < a.accepted AND NOT i.part = ANY(CAST(:superseded AS text[]))"""

COUNT_RECEIVED = f"""
    SELECT coalesce(sum(times), 0)::bigint AS received,
        coalesce(sum(times - 1), 0)::bigint AS duplicates
    FROM (SELECT count(*) AS times FROM ({RESULTS}) AS results GROUP BY kind, key) AS keys"""

COUNT_ACCEPTED = """
    SELECT coalesce(sum(a.accepted), 0)::bigint
    FROM catlog.catalog_scheme_operation_instance i
    JOIN catlog.instance_attempt a ON a.instance_id = i.id AND a.attempt = i.attempt
    WHERE i.catalog_id = :catalog AND i.operation_id = :operation AND i.state = 'done'
      AND NOT i.part = ANY(CAST(:superseded AS text[]))"""

OUTDATED = f"""
    SELECT EXISTS (
        SELECT 1 FROM ({RESULTS}) AS a JOIN catlog.record k
            ON k.provider_id = :provider AND k.kind = a.kind AND k.key = a.key
        WHERE k.as_of > :as_of AND a.data IS NOT NULL
          AND (a.data <> k.data OR k.removed_at IS NOT NULL))"""

MERGE = f"WITH arrived AS (SELECT kind, key, data FROM ({RESULTS}) AS results),\n" + load_sql(
    __name__, "detect_changes"
)

# Of duplicate keys the last row by part and number counts; data wins over `Unchanged`.
MERGE_DISTINCT = f"""WITH arrived AS (
    SELECT DISTINCT ON (kind, key) kind, key, data FROM ({RESULTS}) AS results
    ORDER BY kind, key, data IS NULL, part DESC, seq DESC),
""" + load_sql(__name__, "detect_changes")
