"""Detection of changes: the query that decides about each key of a load and of its records.

All of it joins by hashes, and the rows that travel through the join are narrow.
"""

from typing import Literal

from catlog_scrapy.store.definitions import KindDefinition
from catlog_scrapy.store.publishing.readings import READINGS
from catlog_scrapy.store.queue.copy_format import REMOVED_HASH

Subset = Literal["all", "range", "ids"]

RESULTS = "catlog.catalog_operation_instance_result"


class ChangeDetection:
    """Queries for the changes that results bring to the records of *kind*.

    *has_marks* says that there are part marks. The queries take a *subset* of the keys: the range
    of hashes from `:low` to `:high`, or those in `:ids`, whose results are at `:places`.
    """

    def __init__(self, kind: KindDefinition, *, has_marks: bool, subset: Subset) -> None:
        self.kind = kind
        self.has_marks = has_marks
        self.subset = subset

    def judged(self, *, is_distinct: bool) -> str:
        """Return the query that decides about each key that arrived or is known.

        A record with a newer `as_of` stays as it is. `Removed` counts only for records that its
        part wrote last; another record of a full load is then absent like any that did not arrive.
        An unknown key that the source has deleted is stored, since an older load may still bring
        it. A partial load has no high-water mark, so it stores its `as_of` with every key that it
        read.
        """
        return f"""
            SELECT coalesce(a.id, k.id) AS id, a.id IS NOT NULL AS is_arrived,
                k.id IS NOT NULL AS is_known, k.place, a.place AS result_place, a.instance,
                a.attempt, a.seq,
                coalesce(a.was_read, false) AS was_read, a.hash,
                CASE WHEN a.id IS NULL OR a.is_removal AND k.id IS NOT NULL THEN k.part
                     ELSE a.part END AS part,
                CASE WHEN a.id IS NULL THEN CAST(:earliest AS timestamptz)
                     ELSE a.as_of END AS as_of,
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
                     ELSE 'moved' END AS change,
                CASE WHEN k.id IS NULL THEN NOT (:removes AND a.is_removal)
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
                    AND (k.is_removed OR a.hash <> k.hash) AS is_outdated
            FROM ({self.arrived(is_distinct=is_distinct)}) AS a
            FULL JOIN ({self._known()}) AS k ON k.id = a.id"""

    def arrived(self, *, is_distinct: bool) -> str:
        """Return the query of the results.

        Of duplicate keys, data beats `Unchanged`, and that beats `Removed`; then the last row by
        part and number counts.
        """
        distinct, order, at_places = "", "", ""
        if self.subset == "ids":
            # Spares a scan of all results. Places of two partitions may be equal, keys decide.
            at_places = "AND r.ctid = ANY(CAST(:places AS tid[]))"
        if is_distinct:
            distinct = "DISTINCT ON (r.key_hash)"
            order = f"""ORDER BY r.key_hash, CASE WHEN r.content_hash IS NULL THEN 1
                WHEN r.content_hash = '{REMOVED_HASH}' THEN 2 ELSE 0 END, g.number DESC,
                r.seq DESC"""
        return f"""
            SELECT {distinct} r.key_hash AS id, r.content_hash AS hash, r.ctid AS place,
                r.instance_id AS instance, r.attempt, r.seq, g.part, g.as_of,
                coalesce(r.content_hash = '{REMOVED_HASH}', false) AS is_removal,
                coalesce(r.content_hash <> '{REMOVED_HASH}', false) AS was_read
            FROM {RESULTS} r {self.join_readings()}
            WHERE {self.of_kind()} {self.in_subset("r.key_hash")} {at_places} {order}"""

    def _known(self) -> str:
        """Return the query of the records, with the time up to which each is confirmed."""
        as_of, marks = "k._as_of", ""
        if self.has_marks:
            as_of = "CASE WHEN k._removed_at IS NULL THEN greatest(k._as_of, m.as_of)"
            as_of += " ELSE k._as_of END"
            marks = """LEFT JOIN unnest(CAST(:mark_scopes AS int[]), CAST(:mark_parts AS text[]),
                CAST(:mark_as_ofs AS timestamptz[])) AS m (scope, part, as_of)
                ON m.scope = k._scope AND m.part = coalesce(k._part, '')"""
        return f"""
            SELECT k.ctid AS place, k._id AS id, k._hash AS hash, {as_of} AS as_of,
                k._removed_at IS NOT NULL AS is_removed, k._part AS part, k._scope AS scope
            FROM {self.kind.table} k {marks}
            WHERE k._provider = :provider {self.in_subset("k._id")}"""

    def in_subset(self, column: str) -> str:
        """Return the condition that the key whose hash is *column* is in the subset."""
        match self.subset:
            case "range":
                return f"AND {column} BETWEEN CAST(:low AS uuid) AND CAST(:high AS uuid)"
            case "ids":
                return f"AND {column} = ANY(CAST(:ids AS uuid[]))"
        return ""

    def join_readings(self) -> str:
        """Return the JOIN of the results `r` with the readings `g` of their attempts."""
        return f"JOIN {READINGS} AS g ON g.instance = r.instance_id AND g.attempt = r.attempt"

    def of_kind(self) -> str:
        """Return the condition on results `r` of this kind that their attempts have counted."""
        return f"""r.instance_id = ANY(CAST(:instances AS uuid[])) AND r.kind = '{self.kind.name}'
            AND r.seq < g.accepted"""
