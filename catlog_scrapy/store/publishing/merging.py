"""Merge of an operation's results into the records of one kind, in slices of hashes."""

import datetime as dt
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, exc

from catlog_scrapy.store.definitions import KindDefinition
from catlog_scrapy.store.publishing.detect_changes import Features, Subset
from catlog_scrapy.store.publishing.readings import Reading, as_parameters
from catlog_scrapy.store.publishing.scopes import PartMark, Sibling
from catlog_scrapy.store.publishing.statements import KindStatements
from catlog_scrapy.store.record_tables.layout import stored_columns
from catlog_scrapy.store.sql import one, rows, run, scalar

# Rows of a slice: those that are compared, in about 100 bytes of memory each, and those that are
# written, which several joins keep.
MAX_COMPARED_ROWS = 1_000_000
MAX_WRITTEN_ROWS = 500_000
# Memory of one join; a slice takes less.
WORK_MEMORY = "256MB"
ALL_HASHES = 2**128


class UnknownKey(Exception):
    """`Unchanged` for a key that has no record. Raised by `merge`, caught by the publisher."""


class _BareResults(Exception):
    """Results without data are among those of a first load. Raised and caught by `_Merge`."""


@dataclass(frozen=True)
class MergeValues:
    """Parameters of a merge; provider, scope and catalog are the numbers of their rows.

    `earliest` is the `as_of` of absences. `removes` says that absent records are removed, `leaves`
    that records of parts besides `all_parts` are removed, `refreshes` that the time of reading is
    stored.
    """

    provider: int
    scope: int
    catalog: int
    now: dt.datetime
    earliest: dt.datetime
    removes: bool
    leaves: bool
    refreshes: bool
    all_parts: Sequence[str]


class RivalReading(NamedTuple):
    """Reading of another operation in the catalog; it may bring the same keys.

    Of two readings at one time, that of the operation with the higher rank decides; the rank of the
    operation that is merged is 0.
    """

    instance: UUID
    attempt: int
    accepted: int
    as_of: dt.datetime
    rank: int


@dataclass(frozen=True)
class OtherWriters:
    """State of the other writers of a kind, before the catalog changes anything.

    `marks` are the times up to which full loads have confirmed the records of parts. `abandoned`
    are the scopes of removed operations that have no successor.
    """

    siblings: Sequence[Sibling]
    abandoned: Sequence[int]
    marks: Sequence[PartMark]
    rivals: Sequence[RivalReading]

    @property
    def features(self) -> Features:
        """Return which tables the statements need."""
        return Features(bool(self.marks), bool(self.siblings), bool(self.rivals))

    def as_parameters(self) -> dict[str, Any]:
        """Return the parameters of the statements."""
        return {
            "mark_scopes": [mark.scope for mark in self.marks],
            "mark_parts": [mark.part for mark in self.marks],
            "mark_as_ofs": [mark.as_of for mark in self.marks],
            "siblings": [sibling.number for sibling in self.siblings],
            "sibling_marks": [sibling.high_water_mark for sibling in self.siblings],
            "abandoned": list(self.abandoned),
            "rival_instances": [str(rival.instance) for rival in self.rivals],
            "rival_attempts": [rival.attempt for rival in self.rivals],
            "rival_accepted": [rival.accepted for rival in self.rivals],
            "rival_as_ofs": [rival.as_of for rival in self.rivals],
            "rival_ranks": [rival.rank for rival in self.rivals],
        }


@dataclass
class KindCounts:
    """Counts of a merge. `present` counts the operation's current records before it.

    `outdated` counts the results that a newer load has contradicted already, `taken` the records
    that belonged to a sibling, and `abandoned` the removed records of removed operations.
    """

    received: int = 0
    duplicates: int = 0
    present: int = 0
    outdated: int = 0
    taken: int = 0
    abandoned: int = 0
    changes: Counter[str] = field(default_factory=Counter)


def merge(
    connection: Connection,
    kind: KindDefinition,
    readings: Sequence[Reading],
    others: OtherWriters,
    values: MergeValues,
) -> KindCounts:
    """Merge the results of *readings* into the records of *kind*.

    Raises UnknownKey, and DataError for a value that does not fit its column.
    """
    parameters = {**asdict(values), **as_parameters(readings), **others.as_parameters()}
    run(connection, PLANNER_SETTINGS)
    merging = _Merge(connection, kind, others.features, parameters)
    counts = merging.run(sum(r.accepted for r in readings))
    run(connection, "SET LOCAL enable_nestloop = on")
    return counts


# The rows have just arrived and have no statistics, so the planner would expect few of them. Hash
# joins are the best choice whatever the number of rows; look-ups by place have no other plan.
PLANNER_SETTINGS = f"""
    SET LOCAL work_mem = '{WORK_MEMORY}'; SET LOCAL enable_sort = off;
    SET LOCAL enable_mergejoin = off; SET LOCAL enable_nestloop = off;
    SET LOCAL max_parallel_workers_per_gather = 0"""


class _Merge:
    """Merge of one kind. `parameters` are those of all its statements."""

    def __init__(
        self,
        connection: Connection,
        kind: KindDefinition,
        features: Features,
        parameters: Mapping[str, Any],
    ) -> None:
        self.connection = connection
        self.kind = kind
        self.features = features
        self.parameters = dict(parameters)
        self.counts = KindCounts()
        declared = dict(kind.columns)
        stored = stored_columns(connection, [kind.name]).get(kind.name, {})
        self.retired = [name for name in stored if name not in declared]

    def run(self, received: int) -> KindCounts:
        """Merge all results, at most *received*."""
        statements = self._statements("all")
        if self.features.has_rivals:
            outranked = scalar(self.connection, statements.count_outranked(), **self.parameters)
            self.counts.received = self.counts.duplicates = outranked
        records = one(self.connection, statements.count_records(), **self.parameters)
        if records["own"] == 0 and self._insert_first(statements, received):
            return self.counts
        self.parameters |= records
        for low, high in _slices(max(records["known"], received), MAX_COMPARED_ROWS):
            self._merge_slice(low, high)
        return self.counts

    def _statements(self, subset: Subset) -> KindStatements:
        return KindStatements(self.kind, self.retired, self.features, subset)

    def _insert_first(self, statements: KindStatements, received: int) -> bool:
        """Insert all results; return False if some have no data or a key is there twice."""
        try:
            with self.connection.begin_nested():
                inserted = run(self.connection, statements.insert_first(), **self.parameters)
                if inserted != received and self._has_bare_results(statements):
                    raise _BareResults
        except (exc.IntegrityError, _BareResults):
            return False
        self.counts.received += inserted
        self.counts.changes["created"] = inserted
        return True

    def _has_bare_results(self, statements: KindStatements) -> bool:
        return bool(scalar(self.connection, statements.has_bare_results(), **self.parameters))

    def _merge_slice(self, low: int, high: int) -> None:
        """Merge the results and records with hashes from *low* to *high*."""
        found = self._compare(low, high)
        is_distinct = bool(found.duplicates or found.unknown or found.ignored)
        self.counts.received += found.received
        self.counts.present += found.present
        distinct = self._compare(low, high, is_distinct=True) if is_distinct else found
        if distinct.unknown:
            raise UnknownKey
        if distinct.written and not self._write(low, high, distinct, is_distinct=is_distinct):
            distinct = self._compare(low, high, is_distinct=True)
            self._write(low, high, distinct, is_distinct=True)
        self.counts.duplicates += found.received - distinct.received
        self.counts.outdated += distinct.outdated
        self.counts.taken += distinct.taken
        self.counts.abandoned += distinct.abandoned

    def _compare(self, low: int, high: int, *, is_distinct: bool = False) -> "_Compared":
        statements = self._statements(_subset(low, high))
        return _Compared(
            **one(
                self.connection,
                statements.compare(is_distinct=is_distinct),
                **self.parameters,
                low=_hash(low),
                high=_hash(high),
            )
        )

    def _write(self, low: int, high: int, found: "_Compared", *, is_distinct: bool) -> bool:
        """Write a slice; return False, without changes, if a new key is there twice."""
        changes: Counter[str] = Counter()
        slices = [(low, high)]
        if found.ids is None:
            slices = list(_slices(found.written, MAX_WRITTEN_ROWS, low, high))
        try:
            with self.connection.begin_nested():
                for first, last in slices:
                    subset = _subset(first, last) if found.ids is None else "ids"
                    for change in rows(
                        self.connection,
                        self._statements(subset).write(is_distinct=is_distinct),
                        **self.parameters,
                        low=_hash(first),
                        high=_hash(last),
                        ids=found.ids,
                        places=found.places or [],
                    ):
                        changes[change["change"]] += change["records"]
        except exc.IntegrityError:
            if is_distinct:
                raise
            return False
        self.counts.changes += changes
        return True


@dataclass(frozen=True)
class _Compared:
    """Numbers of records and results in a slice; see `KindStatements.compare`.

    `ignored` counts the removals of unknown keys that a full load need not store; several of them,
    or one of them and a record, may have the same key. `ids` are the hashes of the keys to be
    written, `places` those of their results; both are None if there are too many.
    """

    known: int
    present: int
    received: int
    matched: int
    absent: int
    written: int
    unknown: int
    ignored: int
    outdated: int
    taken: int
    abandoned: int
    ids: list[str] | None
    places: list[str] | None

    @property
    def duplicates(self) -> int:
        """Number of results that are not the only one of a known key."""
        return self.matched - (self.known - self.absent)


def _slices(
    count: int, size: int, low: int = 0, high: int = ALL_HASHES - 1
) -> Iterator[tuple[int, int]]:
    """Yield ranges of the hashes from *low* to *high*, each with about *size* rows of *count*."""
    number = max(1, -(-count // size))
    width = high - low + 1
    for position in range(number):
        yield low + position * width // number, low + (position + 1) * width // number - 1


def _subset(low: int, high: int) -> Subset:
    return "all" if (low, high) == (0, ALL_HASHES - 1) else "range"


def _hash(number: int) -> str:
    return str(UUID(int=number))
