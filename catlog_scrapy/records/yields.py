"""Shapes in which a spider yields records."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from catlog_scrapy.records.record import Record


@dataclass(frozen=True, slots=True)
class Batch:
    """Many records as one item, such as a JSON page of ten thousand. It counts by its length.

    `items` are dicts (or Drafts); `record` is needed only where the spider yields several types.
    """

    items: Sequence[Mapping[str, Any]]
    record: type[Record] | None = None

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True, slots=True)
class Unchanged:
    """A known record that the spider has seen but not read again: it is kept, not removed.

    `key` is the value of a single-field key, or the values in the order of the key.
    """

    key: Any
    record: type[Record] | None = None

    def values(self) -> Sequence[Any]:
        """The key's values, in the order of the key."""
        return list(self.key) if isinstance(self.key, (list, tuple)) else [self.key]


@dataclass(frozen=True, slots=True)
class Removed(Unchanged):
    """A record that is gone, as its source says: it is removed, whatever else the load brings.

    `key` as for `Unchanged`. A key that is no record is passed over.
    """


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far an incremental operation has read. Its next load gets `value` as `cursor`.

    It is published together with the data of its load, and only with it. The last one of a crawl
    counts. Where a source has nothing new, its cursor is an answer too.
    """

    value: str
