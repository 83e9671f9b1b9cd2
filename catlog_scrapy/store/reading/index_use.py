"""Pages that no index supports."""

from dataclasses import dataclass

from sqlalchemy import Connection

from catlog_scrapy.store.definitions import KindDefinition
from catlog_scrapy.store.reading.page_query import PageQuery
from catlog_scrapy.store.record_tables.indexes import TIME_COLUMNS
from catlog_scrapy.store.sql import one


@dataclass(frozen=True)
class IndexUse:
    """Estimated number of rows of a kind's table, and the first column of each of its indexes."""

    rows: float
    indexed: frozenset[str]

    def missing(self, query: PageQuery) -> str | None:
        """Return the filter or order of *query* without an index. One indexed filter suffices."""
        filters = [*query.equal, *(column for column, _, _ in query.bounds)]
        if filters:
            return None if self._has_index(filters) else f"filter by {filters[0]}"
        ordered = [term.column for term in query.order[:1]]
        return None if not ordered or self._has_index(ordered) else f"order by {ordered[0]}"

    def _has_index(self, columns: list[str]) -> bool:
        return any(TIME_COLUMNS.get(column, column) in self.indexed for column in columns)


def read_index_use(connection: Connection, kind: KindDefinition) -> IndexUse:
    """Read the indexes of the table of *kind*, whoever built them."""
    found = one(
        connection,
        """SELECT c.reltuples AS rows, ARRAY(
               SELECT a.attname::text FROM pg_index x
               JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = x.indkey[0]
               WHERE x.indrelid = c.oid AND x.indisvalid) AS indexed
           FROM pg_class c WHERE c.oid = CAST(:table AS regclass)""",
        table=kind.table,
    )
    return (
        IndexUse(found["rows"], frozenset(found["indexed"])) if found else IndexUse(0, frozenset())
    )
