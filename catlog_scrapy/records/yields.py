"""Items that a spider may yield besides single records."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from catlog_scrapy.records.record import Record


@dataclass(frozen=True, slots=True)
class Batch:
    """Many records as one item, such as a JSON page of ten thousand.

    `items` are dicts or Drafts. `record` is their type; a spider with one record type omits it.
    Each record counts as a result.
    """

    items: Sequence[Mapping[str, Any]]
    record: type[Record] | None = None

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True, slots=True)
class Unchanged:
    """Known record that the spider has seen but not read again; the load keeps the record.

    `key` is the value of a single key field, or the values in the order of the key fields. A
    removed record is restored with its last content; a key that never had a record fails the load.
    """

    key: Any
    record: type[Record] | None = None

    def values(self) -> Sequence[Any]:
        """Return the key's values, in the order of the key fields."""
        return list(self.key) if isinstance(self.key, (list, tuple)) else [self.key]


@dataclass(frozen=True, slots=True)
class Removed(Unchanged):
    """Record that the source reports as deleted; an incremental load, too, removes the record.

    `key` is as for Unchanged. The key of an unknown record is ignored.
    """


@dataclass(frozen=True, slots=True)
class Cursor:
    """Position up to which an incremental operation has read its source.

    The next load gets `value` as the argument `cursor`. The last cursor of a crawl counts, and is
    published in one transaction with the data of its load. A load that resumed from a cursor and
    found no new records is complete with its new cursor alone.
    """

    value: str
