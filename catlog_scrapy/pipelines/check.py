"""The first step: an item becomes rows, or is rejected with reasons."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from itemadapter import ItemAdapter
from pydantic import ValidationError
from scrapy.crawler import Crawler
from scrapy.exceptions import DropItem

from catlog_scrapy.attempt import Gate, running_attempt
from catlog_scrapy.items.record import Batch, NotStorable, Record, Unchanged

# A row on its way: kind, key and data as JSON. No data: the key was seen, not read.
Row = tuple[str, str, bytes | None]
# Why an item is rejected: what it was (ASCII) and the reasons.
Rejection = tuple[str, list[str]]


class Rejected(DropItem):
    """Items that did not pass the check. Raised by CheckPipeline, counted by the extension.

    A DropItem, so that Scrapy neither logs it as an error nor hands the item on.
    """

    def __init__(self, rejections: Sequence[Rejection]) -> None:
        super().__init__(rejections[0][1][0], log_level="DEBUG")
        self.rejections = rejections


@dataclass(slots=True)
class Checked:
    """An item with its rows, and those of its records that were rejected."""

    item: Any
    rows: list[Row]
    rejections: list[Rejection]


class CheckPipeline:
    """Builds the record type of every item; what does not validate is rejected.

    An item that comes while the store has no room waits here, before its rows take up memory.
    """

    def __init__(self, records: Mapping[str, type[Record]], gate: Gate) -> None:
        self.records = records
        self.gate = gate
        self.only = next(iter(records.values())) if len(records) == 1 else None

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> "CheckPipeline":
        attempt = running_attempt(crawler)
        return cls(attempt.records, attempt.gate)

    async def process_item(self, item: Any) -> Checked:
        """The item with its rows. Raises Rejected."""
        if not self.gate.is_open:
            await self.gate.wait()
        checked = Checked(item, [], [])
        if isinstance(item, Batch):
            for part in item.items:
                self._check(part, item.record, checked)
        else:
            self._check(item, None, checked)
        if checked.rejections and not checked.rows:
            raise Rejected(checked.rejections)
        return checked

    def _check(self, item: Any, record: type[Record] | None, checked: Checked) -> None:
        try:
            chosen = self._record_type(item, record)
            if isinstance(item, Unchanged):
                checked.rows.append((chosen.kind, chosen.key_from(item.values()), None))
                return
            values = item if type(item) is dict else ItemAdapter(item).asdict()
            built: Record = chosen.__pydantic_validator__.validate_python(values)
            checked.rows.append((chosen.kind, *built.row()))
        except ValidationError as error:
            checked.rejections.append((describe(item), reasons_of(error)))
        except (NotStorable, NoRecordType) as error:
            checked.rejections.append((describe(item), [str(error)]))

    def _record_type(self, item: Any, record: type[Record] | None) -> type[Record]:
        if type(item) is dict and record is None and self.only is not None:
            return self.only  # as nearly always: without a look at what else it might be
        chosen: type[Record] | None = getattr(item, "record", None) or record or self.only
        if chosen is None:
            kinds = ", ".join(self.records)
            raise NoRecordType(
                f"the spider has several record types ({kinds}), so an item has to say its own:"
                " yield Type.draft(...)"
            )
        if self.records.get(chosen.kind) is not chosen:
            raise NoRecordType(f"{chosen.__name__} is none of the spider's record types")
        if not isinstance(item, Unchanged) and not ItemAdapter.is_item(item):
            raise NoRecordType(f"a {type(item).__name__} is no item")
        return chosen


class NoRecordType(ValueError):
    """An item that belongs to no record type of its spider. Its text is the reason kept."""


def reasons_of(error: ValidationError) -> list[str]:
    """What pydantic found, a line for each field."""
    try:
        return [
            f"{'.'.join(map(str, part['loc']))}: {part['msg']}"
            for part in error.errors(include_url=False, include_input=False)
        ]
    except UnicodeError:
        return [f"{error.error_count()} fields are wrong, in words that are no text"]


def describe(item: Any) -> str:
    """The item as ASCII text, whatever it holds."""
    try:
        values = ItemAdapter(item).asdict() if ItemAdapter.is_item(item) else item
        return json.dumps(values, default=repr)
    except (TypeError, ValueError, RecursionError):
        return f"<{type(item).__name__} that cannot be written>"
