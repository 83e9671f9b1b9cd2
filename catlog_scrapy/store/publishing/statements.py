"""SQL statements that merge results into the tables of one kind.

All of them join by hashes. Rows that travel through joins are narrow: the JSON of a result and the
fields of a record are fetched by their place only when they are written or compared, so that memory
does not grow with the width of the records. The text of the JSON is parsed once, to jsonb.
"""

from collections.abc import Sequence

from catlog_scrapy.store.definitions import KindDefinition
from catlog_scrapy.store.publishing.detect_changes import (
    RESULTS,
    ChangeDetection,
    Features,
    Subset,
)
from catlog_scrapy.store.queue.copy_format import REMOVED_HASH
from catlog_scrapy.store.record_tables.layout import column_names, json_value

# Keys that are written one by one, instead of comparing the whole slice again.
MAX_LISTED_KEYS = 50_000

# Changes that give a record new values, and those that only change columns of catlog's own.
REWRITTEN = "(d.change = 'changed' OR d.change = 'restored' AND d.was_read)"
MARKED = """(d.change IN ('removed', 'touched', 'reassigned', 'reformatted')
    OR d.change = 'restored' AND NOT d.was_read)"""

META_COLUMNS = """_id, _hash, _provider, _scope, _catalog, _part, _as_of, _created_at, _updated_at,
    _removed_at, _read_at"""


class KindStatements(ChangeDetection):
    """Statements for the tables of *kind*.

    *retired* are columns of fields that are no longer declared: a state that a load writes has no
    values there.
    """

    def __init__(
        self, kind: KindDefinition, retired: Sequence[str], features: Features, subset: Subset
    ) -> None:
        super().__init__(kind, features, subset)
        self.retired = [f'"{name}"' for name in retired]
        self.declared = [name for name, _ in kind.fields]
        self.tracked = [field for field in kind.fields if field[0] not in kind.untracked]

    def count_records(self) -> str:
        """Return the query that counts the provider's records.

        `known` counts all, removed ones included, `own` those of no sibling, and `present` the
        current ones that the operation answers for.
        """
        own = "_scope <> ALL(CAST(:siblings AS int[]))"
        return f"""
            SELECT count(*) AS known, count(*) FILTER (WHERE {own}) AS own,
                count(*) FILTER (WHERE _removed_at IS NULL AND {own}
                    AND _scope <> ALL(CAST(:abandoned AS int[]))) AS present
            FROM {self.kind.table} WHERE _provider = :provider {self.in_subset("_id")}"""

    def count_outranked(self) -> str:
        """Return the query that counts the results of which a rival reading decides."""
        return f"""SELECT count(*) FROM {RESULTS} r {self.join_readings()}
            WHERE {self.of_kind()} AND NOT (true {self.decides()})"""

    def has_bare_results(self) -> str:
        """Return the query whether there are results without data."""
        return f"""SELECT EXISTS (
            SELECT 1 FROM ({self.arrived(is_distinct=False)}) AS arrived WHERE NOT was_read)"""

    def insert_first(self) -> str:
        """Return the statement that inserts all results with data, without looking for records."""
        return f"""
            INSERT INTO {self.kind.table} ({column_names(self.kind)}, {META_COLUMNS})
            SELECT {self._values()}, r.key_hash, r.content_hash, :provider, :scope, :catalog,
                g.part, g.as_of, :now, :now, NULL,
                CASE WHEN :refreshes THEN g.read_at END
            FROM {RESULTS} r {self.join_readings()}
            CROSS JOIN LATERAL (SELECT CAST(r.data AS jsonb) AS data OFFSET 0) AS j
            WHERE {self.of_kind()} AND r.content_hash <> '{REMOVED_HASH}' {self.decides()}"""

    def compare(self, *, is_distinct: bool) -> str:
        """Return the query that counts what a merge would do.

        With *is_distinct*, only the result that counts of each key is compared. All records are
        counted already: `:known` and `:present`.
        """
        records = "SELECT CAST(:known AS bigint) AS known, CAST(:present AS bigint) AS present"
        if self.subset != "all":
            records = self.count_records()
        return f"""
            SELECT known, present, received, matched, absent, written, unknown, ignored, outdated,
                taken, abandoned,
                CASE WHEN written <= {MAX_LISTED_KEYS} THEN CAST(ids AS text[]) END AS ids,
                CASE WHEN written <= {MAX_LISTED_KEYS} THEN CAST(places AS text[]) END AS places
            FROM ({records}) AS records CROSS JOIN (
                SELECT count(*) FILTER (WHERE is_arrived) AS received,
                    count(*) FILTER (WHERE is_arrived AND is_known) AS matched,
                    count(*) FILTER (WHERE NOT is_arrived) AS absent,
                    count(*) FILTER (WHERE is_written) AS written,
                    count(*) FILTER (WHERE is_written AND change = 'unknown') AS unknown,
                    count(*) FILTER (WHERE is_arrived AND NOT is_known AND NOT is_written)
                        AS ignored,
                    count(*) FILTER (WHERE is_outdated) AS outdated,
                    count(*) FILTER (WHERE is_written AND is_foreign AND change <> 'restored')
                        AS taken,
                    count(*) FILTER (WHERE is_written AND change = 'removed'
                        AND scope = ANY(CAST(:abandoned AS int[]))) AS abandoned,
                    array_agg(id) FILTER (WHERE is_written) AS ids,
                    array_agg(result_place) FILTER (WHERE is_written AND is_arrived) AS places
                FROM ({self.judged(is_distinct=is_distinct)}) AS judged) AS judged"""

    def write(self, *, is_distinct: bool) -> str:
        """Return the statement that writes all changes and counts them by change."""
        table, fields = self.kind.table, column_names(self.kind)
        former = ", ".join([fields, *self.retired])
        of_former = ", ".join(
            [column_names(self.kind, "k"), *(f"k.{name}" for name in self.retired)]
        )
        retire = "".join(f"{name} = NULL, " for name in self.retired)
        return f"""
            WITH verdict AS MATERIALIZED (
                SELECT id, place, instance, attempt, seq, was_read, hash, part, as_of, read_at,
                    change
                FROM ({self.judged(is_distinct=is_distinct)}) AS judged WHERE is_written),
            changes AS MATERIALIZED (
                SELECT d.id, d.place, d.instance, d.attempt, d.seq, d.was_read, d.hash, d.part,
                    d.as_of, d.read_at,
                    CASE WHEN ROW({self._tracked_columns()})
                             IS DISTINCT FROM ROW({self._tracked_values()}) THEN 'changed'
                         WHEN :removes AND NOT :refreshes THEN 'reformatted'
                         ELSE 'touched' END AS change
                FROM verdict d {self._lookup_record()} {self._lookup_data()}
                WHERE d.change = 'differs'),
            decided AS NOT MATERIALIZED (
                SELECT * FROM verdict WHERE change <> 'differs' UNION ALL SELECT * FROM changes),
            versions AS (
                INSERT INTO {self.kind.versions_table}
                    ({former}, _id, _provider, _catalog, _valid_from, _valid_to, _change)
                SELECT {of_former}, d.id, :provider, :catalog, k._updated_at,
                    :now, d.change
                FROM decided d {self._lookup_record()} WHERE d.change IN ('changed', 'removed')),
            rewritten AS (
                UPDATE {table} k SET
                    ({fields}) = (
                        SELECT {self._values()} FROM (SELECT) AS one {self._lookup_data()}),
                    {retire}_hash = d.hash, _scope = :scope, _catalog = :catalog, _part = d.part,
                    _as_of = d.as_of, _updated_at = :now, _removed_at = NULL,
                    _read_at = CASE WHEN :refreshes THEN d.read_at ELSE k._read_at END
                FROM decided d
                WHERE {self._is_at_place(REWRITTEN)}),
            marked AS (
                UPDATE {table} k SET
                    _hash = CASE WHEN d.was_read THEN d.hash ELSE k._hash END, _scope = :scope,
                    _catalog = CASE WHEN d.change IN ('removed', 'restored') THEN :catalog
                        ELSE k._catalog END,
                    _part = d.part, _as_of = d.as_of,
                    _updated_at = CASE WHEN d.change IN ('removed', 'restored') THEN :now
                        ELSE k._updated_at END,
                    _removed_at = CASE d.change WHEN 'removed' THEN CAST(:now AS timestamptz)
                        WHEN 'restored' THEN NULL ELSE k._removed_at END,
                    _read_at = CASE WHEN :refreshes AND d.was_read THEN d.read_at
                        ELSE k._read_at END
                FROM decided d
                WHERE {self._is_at_place(MARKED)}),
            created AS (
                INSERT INTO {table} ({fields}, {META_COLUMNS})
                SELECT {self._values()}, d.id, d.hash, :provider, :scope, :catalog, d.part,
                    d.as_of, :now, :now, NULL, CASE WHEN :refreshes THEN d.read_at END
                FROM verdict d {self._lookup_data()} WHERE d.change = 'created'),
            deleted AS (
                INSERT INTO {table} ({META_COLUMNS})
                SELECT id, NULL, :provider, :scope, :catalog, part, as_of, :now, :now, :now, NULL
                FROM verdict WHERE change = 'deleted')
            SELECT change, count(*) AS records FROM decided GROUP BY change"""

    def _is_at_place(self, condition: str) -> str:
        """Return the condition that `k` is the record of a change `d` that meets *condition*.

        The list of places spares a scan of all records.
        """
        return f"""k.ctid = d.place AND {condition}
            AND k.ctid = ANY(ARRAY(SELECT d.place FROM decided d WHERE {condition}))"""

    def _lookup_record(self) -> str:
        # OFFSET 0 keeps the planner from turning the look-up into a join of wide rows.
        return f"""CROSS JOIN LATERAL (
            SELECT * FROM {self.kind.table} WHERE ctid = d.place OFFSET 0) AS k"""

    def _lookup_data(self) -> str:
        # The bounds are constants, so that PostgreSQL plans and locks one partition.
        return f"""CROSS JOIN LATERAL (
            SELECT CAST(data AS jsonb) AS data FROM {RESULTS} r WHERE r.instance_id = d.instance
                AND r.instance_id BETWEEN CAST(:first_instance AS uuid)
                    AND CAST(:last_instance AS uuid)
                AND r.attempt = d.attempt AND r.seq = d.seq OFFSET 0) AS j"""

    def _values(self) -> str:
        """Return the expressions of the columns, from the jsonb `j.data`."""
        values = [json_value(name, type_, "j.data") for name, type_ in self.kind.fields]
        if self.kind.foreign:
            values.append(_without("j.data", self.declared))
        return ", ".join(values)

    def _tracked_columns(self) -> str:
        """Return the columns of the record `k` whose new values change the record."""
        columns = [f'k."{name}"' for name, _ in self.tracked]
        if self.kind.foreign:
            columns.append(_without("k.data", self.kind.untracked))
        return ", ".join(columns)

    def _tracked_values(self) -> str:
        """Return the expressions of the values in `j.data` for the tracked columns."""
        values = [json_value(name, type_, "j.data") for name, type_ in self.tracked]
        if self.kind.foreign:
            values.append(_without("j.data", (*self.declared, *self.kind.untracked)))
        return ", ".join(values)


def _without(data: str, names: Sequence[str]) -> str:
    """Return the SQL expression of the jsonb *data* without the members *names*."""
    if not names:
        return data
    quoted = ", ".join(f"'{name.replace(chr(39), chr(39) * 2)}'" for name in names)
    return f"{data} - CAST(ARRAY[{quoted}] AS text[])"
