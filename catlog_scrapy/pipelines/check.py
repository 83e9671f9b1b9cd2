"""The first step: an item becomes rows, or is rejected with reasons."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from itemadapter import ItemAdapter
from pydantic import ValidationError
from scrapy import Spider
from scrapy.crawler import Crawler
from scrapy.exceptions import DropItem

from catlog_scrapy.attempt import Attempt, running_attempt
from catlog_scrapy.items.record import Batch, Cursor, NotStorable, Record, Removed, Unchanged
from catlog_scrapy.scheduling.cursor import CursorError, check_cursor
from catlog_scrapy.secrets import held_secret, redact

# A row on its way: kind, key and data as JSON. No data: the key was seen, not read; JSON's null: it
# is gone, as its source says.
Row = tuple[str, str, bytes | None]
GONE = b"null"
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

    Its validators get the spider as their context: a rule may depend on an argument. An item that
    comes while the store has no room waits here, before its rows take up memory.
    """

    def __init__(self, attempt: Attempt, spider: Spider | None = None) -> None:
        self.attempt = attempt
        self.spider = spider
        self.records: Mapping[str, type[Record]] = attempt.records
        self.gate = attempt.gate
        self.only = next(iter(self.records.values())) if len(self.records) == 1 else None

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> "CheckPipeline":
        return cls(running_attempt(crawler), crawler.spider)

    async def process_item(self, item: Any) -> Checked:
        """The item with its rows. Raises Rejected."""
        if not self.gate.is_open:
            await self.gate.wait()
        checked = Checked(item, [], [])
        if isinstance(item, Batch):
            for part in item.items:
                self._check(part, item.record, checked)
        elif isinstance(item, Cursor):
            self._note(item, checked)
        else:
            self._check(item, None, checked)
        if checked.rejections and not checked.rows:
            raise Rejected(checked.rejections)
        return checked

    def _note(self, cursor: Cursor, checked: Checked) -> None:
        claim = self.attempt.claim
        try:
            if claim.mode != "incremental":
                raise CursorError(
                    'a cursor, but the operation is not declared incremental: mode = "incremental"'
                )
            self._refuse_secrets(str(cursor.value))
            self.attempt.report.cursor = check_cursor(cursor.value, claim.limits.get("overlap"))
        except (CursorError, NotStorable) as error:
            checked.rejections.append(rejection(cursor, [str(error)]))

    def _check(self, item: Any, record: type[Record] | None, checked: Checked) -> None:
        try:
            chosen = self._record_type(item, record)
            if isinstance(item, Unchanged):
                data = GONE if isinstance(item, Removed) else None
                self._add((chosen.kind, chosen.key_from(item.values()), data), checked)
                return
            values = item if type(item) is dict else ItemAdapter(item).asdict()
            built: Record = chosen.__pydantic_validator__.validate_python(
                values, context=self.spider
            )
            self._add((chosen.kind, *built.row()), checked)
        except ValidationError as error:
            checked.rejections.append(rejection(item, reasons_of(error)))
        except (NotStorable, NoRecordType) as error:
            checked.rejections.append(rejection(item, [str(error)]))

    def _add(self, row: Row, checked: Checked) -> None:
        _, key, data = row
        if self.attempt.secrets:
            self._refuse_secrets(f"{key} {(data or b'').decode()}")
        checked.rows.append(row)

    def _refuse_secrets(self, text: str) -> None:
        """Raise NotStorable where *text* holds a secret: masked it would be another record."""
        if held := held_secret(self.attempt.secrets, text):
            raise NotStorable(f"it holds the secret {held!r}, which must not be stored")

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


def rejection(item: Any, reasons: Sequence[str]) -> Rejection:
    """Why *item* is rejected, without the secrets that it may hold."""
    return redact(describe(item)), [redact(reason) for reason in reasons]


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
