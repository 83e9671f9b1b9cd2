"""Detection of changes: the query that decides about each key of a load and of its records.

All of it joins by hashes, and the rows that travel through the join are narrow.
"""

from typing import Literal, NamedTuple

from catlog_scrapy.store.definitions import KindDefinition
from catlog_scrapy.store.publishing.readings import READINGS
from catlog_scrapy.store.queue.copy_format import REMOVED_HASH

Subset = Literal["all", "range", "ids"]

RESULTS = "catlog.catalog_operation_instance_result"


class Features(NamedTuple):
    """Features of a merge: part marks, siblings of the scope, rival readings in the catalog."""

    has_marks: bool
    has_siblings: bool
    has_rivals: bool


class ChangeDetection:
    """Queries for the changes that results bring to the records of *kind*.

    *features* says which further tables the queries need. They take a *subset* of the keys: the
    range of hashes from `:low` to `:high`, or those in `:ids`, whose results are at `:places`.
    """

    def __init__(self, kind: KindDefinition, features: Features, subset: Subset) -> None:
        self.kind = kind
        self.features = features
        self.subset = subset

    def judged(self, *, is_distinct: bool) -> str:
        """Return the query that decides about each key that arrived or is known.

        A record with a newer `as_of` stays as it is. `Removed` counts only for records that its
        part wrote last; another record of a full load is then absent like any that did not arrive.
        A foreign record belongs to a sibling, which alone removes it; data moves it. A removal by
        the sibling says nothing about this operation's source, so older data restores the record.
        An unknown key that the source has deleted is stored, since an older load may still bring
        it. A partial load has no high-water mark, so it stores its `as_of` with every key that it
        read.
        """
        return f"""
            SELECT coalesce(a.id, k.id) AS id, a.id IS NOT NULL AS is_arrived,
                k.id IS NOT NULL AS is_known, k.is_foreign, k.scope, k.place,
                a.place AS result_place, a.instance,
                a.attempt, a.seq,
                coalesce(a.was_read, false) AS was_read, a.hash,
                CASE WHEN a.id IS NULL OR a.is_removal AND k.id IS NOT NULL THEN k.part
                     ELSE a.part END AS part,
                CASE WHEN a.id IS NULL OR a.is_removal AND NOT k.is_removed
                         AND k.part IS DISTINCT FROM a.part THEN CAST(:earliest AS timestamptz)
                     ELSE a.as_of END AS as_of, a.read_at,
                CASE WHEN k.id IS NULL AND a.is_removal THEN 'deleted'
                     WHEN k.id IS NULL AND a.was_read THEN 'created'
                     WHEN k.id IS NULL THEN 'unknown'
                     WHEN a.id IS NULL OR a.is_removal AND NOT k.is_removed THEN 'removed'
                     WHEN a.is_removal THEN 'touched'
                     WHEN k.is_removed AND (a.was_read OR k.hash IS NOT NULL) THEN 'restored'
                     WHEN k.is_removed THEN 'unknown'
                     WHEN a.was_read AND a.hash <> k.hash THEN 'differs'
                     WHEN :refreshes AND a.was_read OR NOT :removes AND k.as_of < a.as_of
                         THEN 'touched'
                     ELSE 'reassigned' END AS change,
                CASE WHEN k.id IS NULL THEN NOT (:removes AND a.is_removal)
                     WHEN k.is_foreign AND (a.id IS NULL OR a.is_removal) THEN false
                     WHEN k.is_foreign AND k.is_removed THEN true
                     WHEN k.is_elsewhere AND (a.id IS NULL OR a.is_removal) THEN false
                     WHEN a.id IS NULL THEN NOT k.is_removed AND k.as_of <= :earliest
                         AND (:removes OR :leaves AND k.scope = :scope AND k.part IS NOT NULL
                              AND k.part <> ALL(CAST(:all_parts AS text[])))
                     WHEN k.as_of > a.as_of THEN false
                     WHEN a.is_removal AND k.is_removed THEN NOT :removes AND k.as_of < a.as_of
                     WHEN a.is_removal THEN k.part IS NOT DISTINCT FROM a.part
                         OR :removes AND k.as_of <= :earliest
                     ELSE k.is_removed OR k.part IS DISTINCT FROM a.part OR k.scope <> :scope
                         OR a.was_read AND (:refreshes OR a.hash <> k.hash)
                         OR NOT :removes AND k.as_of < a.as_of END AS is_written,
                k.as_of > a.as_of AND (a.was_read OR a.is_removal)
                    AND NOT (k.is_foreign AND (k.is_removed OR a.is_removal))
                    AND (k.is_removed OR a.hash <> k.hash) AS is_outdated
            FROM ({self.arrived(is_distinct=is_distinct)}) AS a
            FULL JOIN ({self._known()}) AS k ON k.id = a.id"""

    def arrived(self, *, is_distinct: bool) -> str:
        """Return the query of the results.

        Of duplicate keys, data beats `Unchanged`, and that beats `Removed`. Of several `Removed`,
        that of the part which wrote the record last counts; otherwise the last row by part and
        number.
        """
        distinct, order, owner, at_places = "", "", "", ""
        if self.subset == "ids":
            # Spares a scan of all results. Places of two partitions may be equal, keys decide.
            at_places = "AND r.ctid = ANY(CAST(:places AS tid[]))"
        if is_distinct:
            distinct = "DISTINCT ON (r.key_hash)"
            # A load of one part reads no owners.
            owner = f"""LEFT JOIN (
                SELECT k._id AS id, k._part AS part FROM {self.kind.table} k
                WHERE k._provider = :provider AND cardinality(CAST(:instances AS uuid[])) > 1
                    {self.in_subset("k._id")}) AS o
                ON o.id = r.key_hash AND r.content_hash = '{REMOVED_HASH}'"""
            order = f"""ORDER BY r.key_hash, CASE WHEN r.content_hash IS NULL THEN 1
                WHEN r.content_hash = '{REMOVED_HASH}' THEN 2 ELSE 0 END,
                o.id IS NOT NULL AND o.part IS NOT DISTINCT FROM g.part DESC, g.number DESC,
                r.seq DESC"""
        return f"""
            SELECT {distinct} r.key_hash AS id, r.content_hash AS hash, r.ctid AS place,
                r.instance_id AS instance, r.attempt, r.seq, g.part, g.as_of, g.read_at,
                coalesce(r.content_hash = '{REMOVED_HASH}', false) AS is_removal,
                coalesce(r.content_hash <> '{REMOVED_HASH}', false) AS was_read
            FROM {RESULTS} r {self.join_readings()} {owner}
            WHERE {self.of_kind()} {self.decides()} {self.in_subset("r.key_hash")} {at_places}
            {order}"""

    def _known(self) -> str:
        """Return the query of the records, with the time up to which each is confirmed."""
        times, joins, is_foreign, is_elsewhere = ["k._as_of"], "", "false", "false"
        if self.features.has_marks:
            times.append("m.as_of")
            joins += """
                LEFT JOIN unnest(CAST(:mark_scopes AS int[]), CAST(:mark_parts AS text[]),
                    CAST(:mark_as_ofs AS timestamptz[])) AS m (scope, part, as_of)
                ON m.scope = k._scope AND m.part = coalesce(k._part, '')"""
        if self.features.has_siblings:
            times.append("s.as_of")
            is_foreign = "s.scope IS NOT NULL"
            joins += """
                LEFT JOIN unnest(CAST(:siblings AS int[]), CAST(:sibling_marks AS timestamptz[]))
                    AS s (scope, as_of) ON s.scope = k._scope"""
        if self.features.has_rivals:
            is_elsewhere = "e.id IS NOT NULL"
            joins += f" LEFT JOIN {self._brought_by_rivals()} AS e ON e.id = k._id"
        as_of = times[0]
        if joins:
            as_of = f"CASE WHEN k._removed_at IS NULL THEN greatest({', '.join(times)})"
            as_of += " ELSE k._as_of END"
        return f"""
            SELECT k.ctid AS place, k._id AS id, k._hash AS hash, {as_of} AS as_of,
                k._removed_at IS NOT NULL AS is_removed, k._part AS part, k._scope AS scope,
                {is_foreign} AS is_foreign, {is_elsewhere} AS is_elsewhere
            FROM {self.kind.table} k {joins}
            WHERE k._provider = :provider {self.in_subset("k._id")}"""

    def _brought_by_rivals(self) -> str:
        """Return the subquery of the keys that other operations of the catalog bring.

        Of each key, the row that decides: data before `Unchanged`, then the last reading.
        """
        return f"""(
            SELECT DISTINCT ON (r.key_hash) r.key_hash AS id,
                r.content_hash IS NOT NULL AS was_read, v.as_of, v.rank
            FROM {RESULTS} r
            JOIN unnest(CAST(:rival_instances AS uuid[]), CAST(:rival_attempts AS int[]),
                    CAST(:rival_accepted AS bigint[]), CAST(:rival_as_ofs AS timestamptz[]),
                    CAST(:rival_ranks AS int[])) AS v (instance, attempt, accepted, as_of, rank)
                ON v.instance = r.instance_id AND v.attempt = r.attempt
            WHERE r.instance_id = ANY(CAST(:rival_instances AS uuid[]))
              AND r.kind = '{self.kind.name}' AND r.seq < v.accepted
              AND r.content_hash IS DISTINCT FROM '{REMOVED_HASH}'
              {self.in_subset("r.key_hash")}
            ORDER BY r.key_hash, 2 DESC, v.as_of DESC, v.rank DESC)"""

    def in_subset(self, column: str) -> str:
        """Return the condition that the key whose hash is *column* is in the subset."""
        match self.subset:
            case "range":
                return f"AND {column} BETWEEN CAST(:low AS uuid) AND CAST(:high AS uuid)"
            case "ids":
                return f"AND {column} = ANY(CAST(:ids AS uuid[]))"
        return ""

    def join_readings(self) -> str:
        """Return the JOINs of the results `r` with the readings `g` of their attempts."""
        joins = f"JOIN {READINGS} AS g ON g.instance = r.instance_id AND g.attempt = r.attempt"
        if self.features.has_rivals:
            joins += f" LEFT JOIN {self._brought_by_rivals()} AS e ON e.id = r.key_hash"
        return joins

    def decides(self) -> str:
        """Return the condition that no rival reading decides about the key of a result `r`."""
        if not self.features.has_rivals:
            return ""
        return f"""AND (e.id IS NULL OR r.content_hash IS DISTINCT FROM '{REMOVED_HASH}'
            AND (r.content_hash IS NOT NULL, g.as_of, 0) > (e.was_read, e.as_of, e.rank))"""

    def of_kind(self) -> str:
        """Return the condition on results `r` of this kind that their attempts have counted."""
        return f"""r.instance_id = ANY(CAST(:instances AS uuid[])) AND r.kind = '{self.kind.name}'
            AND r.seq < g.accepted"""
