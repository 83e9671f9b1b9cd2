"""Does an item fit its record type? It becomes a row, or is rejected with reasons."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from itemadapter import ItemAdapter
from pydantic import ValidationError

from catlog_scrapy.records.record import Record
from catlog_scrapy.records.storable import NotStorable
from catlog_scrapy.records.yields import Removed, Unchanged
from catlog_scrapy.redaction import find_secret_in, redact

# A row on its way: kind, key and data as JSON. No data: the key was seen, not read; JSON's null: it
# is gone, as its source says.
Row = tuple[str, str, bytes | None]
REMOVED_DATA = b"null"
# Why an item is rejected: what it was (ASCII) and the reasons.
Rejection = tuple[str, list[str]]


@dataclass(slots=True)
class ValidatedItem:
    """An item with its rows, and those of its records that were rejected."""

    item: Any
    rows: list[Row] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)


class ItemValidator:
    """Builds one of *records*, by kind, of every item.

    The validators get *context*. `secrets` are values by name that no record may hold.
    """

    def __init__(self, records: Mapping[str, type[Record]], context: object = None) -> None:
        self.records = records
        self.context = context
        self.secrets: Mapping[str, str] = {}
        self.only = next(iter(records.values())) if len(records) == 1 else None

    def validate(self, item: Any, record: type[Record] | None, validated: ValidatedItem) -> None:
        """Add to *validated* the row of *item*, of the type *record* if not its own; or why not."""
        try:
            chosen = self._record_type(item, record)
            if isinstance(item, Unchanged):
                data = REMOVED_DATA if isinstance(item, Removed) else None
                self._add((chosen.kind, chosen.parse_key(item.values()), data), validated)
                return
            values = item if type(item) is dict else ItemAdapter(item).asdict()
            built: Record = chosen.__pydantic_validator__.validate_python(
                values, context=self.context
            )
            self._add((chosen.kind, *built.row()), validated)
        except ValidationError as error:
            validated.rejections.append(make_rejection(item, validation_reasons(error)))
        except (NotStorable, UnknownRecordType) as error:
            validated.rejections.append(make_rejection(item, [str(error)]))

    def _add(self, row: Row, validated: ValidatedItem) -> None:
        _, key, data = row
        if self.secrets:
            self.refuse_secrets(f"{key} {(data or b'').decode()}")
        validated.rows.append(row)

    def refuse_secrets(self, text: str) -> None:
        """Raise NotStorable where *text* holds a secret: masked it would be another record."""
        if held := find_secret_in(self.secrets, text):
            raise NotStorable(f"it holds the secret {held!r}, which must not be stored")

    def _record_type(self, item: Any, record: type[Record] | None) -> type[Record]:
        if type(item) is dict and record is None and self.only is not None:
            return self.only  # as nearly always: without a look at what else it might be
        chosen: type[Record] | None = getattr(item, "record", None) or record or self.only
        if chosen is None:
            kinds = ", ".join(self.records)
            raise UnknownRecordType(
                f"the spider has several record types ({kinds}), so an item has to say its own:"
                " yield Type.draft(...)"
            )
        if self.records.get(chosen.kind) is not chosen:
            raise UnknownRecordType(f"{chosen.__name__} is none of the spider's record types")
        if not isinstance(item, Unchanged) and not ItemAdapter.is_item(item):
            raise UnknownRecordType(f"a {type(item).__name__} is no item")
        return chosen


class UnknownRecordType(ValueError):
    """An item that belongs to no record type of its spider. Its text is the reason kept."""


def make_rejection(item: Any, reasons: Sequence[str]) -> Rejection:
    """Why *item* is rejected, without the secrets that it may hold."""
    return redact(describe_item(item)), [redact(reason) for reason in reasons]


def validation_reasons(error: ValidationError) -> list[str]:
    """What pydantic found, a line for each field."""
    try:
        return [
            f"{'.'.join(map(str, part['loc']))}: {part['msg']}"
            for part in error.errors(include_url=False, include_input=False)
        ]
    except UnicodeError:
        return [f"{error.error_count()} fields are wrong, in words that are no text"]


def describe_item(item: Any) -> str:
    """The item as ASCII text, whatever it holds."""
    try:
        values = ItemAdapter(item).asdict() if ItemAdapter.is_item(item) else item
        return json.dumps(values, default=repr)
    except (TypeError, ValueError, RecursionError):
        return f"<{type(item).__name__} that cannot be written>"
