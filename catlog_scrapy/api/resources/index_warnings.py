"""Warnings about pages of large kinds that no index supports."""

from time import monotonic

from sqlalchemy import Engine

from catlog_scrapy.store.definitions import KindDefinition
from catlog_scrapy.store.reading.index_use import IndexUse, read_index_use
from catlog_scrapy.store.reading.page_query import PageQuery

# Indexes and the size of a table are looked up again after this time.
INDEX_USE_AGE_S = 60.0
WARNING_HEADER = "Catlog-Warning"


class IndexWarnings:
    """Warnings for the pages of *kind*, which is large from *large_rows* rows on."""

    def __init__(self, kind: KindDefinition | None, engine: Engine, large_rows: int) -> None:
        self.kind = kind
        self.large_rows = large_rows
        # A single SELECT needs no BEGIN and COMMIT.
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._use: IndexUse | None = None
        self._read_at = 0.0

    def is_outdated(self, query: PageQuery) -> bool:
        """Return whether the warning of *query* depends on indexes that have to be read again."""
        if self.kind is None or not (query.equal or query.bounds or query.order):
            return False
        return self._use is None or monotonic() - self._read_at > INDEX_USE_AGE_S

    def refresh(self, query: PageQuery) -> None:
        """Read the indexes of the kind if those of *query* are outdated."""
        if self.kind is None or not self.is_outdated(query):
            return
        with self._engine.connect() as connection:
            self._use = read_index_use(connection, self.kind)
        self._read_at = monotonic()

    def headers(self, query: PageQuery) -> dict[str, str]:
        """Return the header for a slow filter or order of a large kind, by the last refresh."""
        if self._use is None or self._use.rows < self.large_rows:
            return {}
        missing = self._use.missing(query)
        return {WARNING_HEADER: f"no index supports the {missing}"} if missing else {}
