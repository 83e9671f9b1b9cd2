"""Scopes: the operations that answer for records, and the times up to which they are confirmed."""

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from catlog_scrapy.store.publishing.readings import Reading
from catlog_scrapy.store.sql import load_sql, one, rows, run


@dataclass(frozen=True)
class Sibling:
    """Scope of another operation that writes the same kind and answers for its own records."""

    number: int
    high_water_mark: dt.datetime | None


@dataclass(frozen=True)
class ScopeState:
    """An operation's scope, and its siblings by kind.

    `high_water_mark` is the newest of the scope and of all former operations whose records it has
    taken over; `newest_mark` includes the siblings. `dropped` counts the items that pipelines
    dropped in the last full snapshot. `abandoned` are the scopes of removed siblings
    without a successor: any writer of the kind answers for their records.
    """

    id: UUID
    number: int
    dropped: int
    high_water_mark: dt.datetime | None
    newest_mark: dt.datetime | None
    siblings: Mapping[str, Sequence[Sibling]]
    abandoned: Sequence[int]

    def is_later_than(self, as_of: dt.datetime) -> bool:
        """Return whether a full snapshot that was read after *as_of* is published."""
        return self.high_water_mark is not None and self.high_water_mark > as_of


@dataclass(frozen=True)
class PartMark:
    """The time up to which full loads have confirmed the records of a scope's part."""

    scope: int
    part: str
    as_of: dt.datetime


def open_scope(
    connection: Connection, provider: UUID, scheme: str, operation: str, kinds: Sequence[str]
) -> ScopeState:
    """Return the scope of an operation that writes *kinds*; the first publish inserts it.

    A renamed operation hands its records on, so the high-water marks of all scopes count that wrote
    its kinds before. Operations that wrote a kind at the same time are siblings.
    """
    identity = {"provider": provider, "scheme": scheme, "operation": operation}
    run(
        connection,
        """INSERT INTO catlog.scope (provider_id, scheme_name, operation_name)
           VALUES (:provider, :scheme, :operation) ON CONFLICT DO NOTHING""",
        **identity,
    )
    own = one(
        connection,
        """SELECT id, number, dropped, high_water_mark FROM catlog.scope
           WHERE provider_id = :provider AND scheme_name = :scheme
             AND operation_name = :operation""",
        **identity,
    )
    others = _other_scopes(connection, kinds=list(kinds), **identity)
    siblings: dict[str, list[Sibling]] = {kind: [] for kind in kinds}
    for other in others:
        if other["is_sibling"]:
            siblings[other["kind"]].append(Sibling(other["number"], other["high_water_mark"]))
    inherited = [other["high_water_mark"] for other in others if not other["is_sibling"]]
    return ScopeState(
        own["id"],
        own["number"],
        own["dropped"],
        _newest([own["high_water_mark"], *inherited]),
        _newest([own["high_water_mark"], *(other["high_water_mark"] for other in others)]),
        siblings,
        [other["number"] for other in others if other["is_abandoned"]],
    )


def read_sibling_numbers(
    connection: Connection, provider: UUID, scheme: str, operation: str, kind: str
) -> set[int]:
    """Return the scopes that answer for records of *kind* beside an operation that writes it."""
    others = _other_scopes(
        connection, kinds=[kind], provider=provider, scheme=scheme, operation=operation
    )
    return {other["number"] for other in others if other["is_sibling"]}


def _other_scopes(connection: Connection, **values: Any) -> Sequence[Mapping[str, Any]]:
    return rows(connection, load_sql(__name__, "select_other_scopes"), **values)


def _newest(times: Iterable[dt.datetime | None]) -> dt.datetime | None:
    return max((time for time in times if time is not None), default=None)


def read_part_marks(connection: Connection, provider: UUID) -> list[PartMark]:
    """Return the part marks of all scopes of a provider."""
    found = rows(
        connection,
        """SELECT s.number AS scope, m.part, m.as_of FROM catlog.part_mark m
           JOIN catlog.scope s ON s.id = m.scope_id WHERE s.provider_id = :provider""",
        provider=provider,
    )
    return [PartMark(**mark) for mark in found]


def set_marks(
    connection: Connection, scope: UUID, earliest: dt.datetime, readings: Sequence[Reading]
) -> None:
    """Store that a full load has decided about all records of a scope.

    About absent ones it has as of its *earliest* reading, about the records of each part as of the
    reading of the part.
    """
    run(
        connection,
        """UPDATE catlog.scope SET high_water_mark = :earliest, dropped = :dropped
           WHERE id = :scope""",
        earliest=earliest,
        dropped=sum(reading.dropped for reading in readings),
        scope=scope,
    )
    run(
        connection,
        "DELETE FROM catlog.part_mark WHERE scope_id = :scope AND as_of <= :earliest",
        earliest=earliest,
        scope=scope,
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
        scope=scope,
        parts=[reading.part for reading in later],
        as_ofs=[reading.as_of for reading in later],
    )
