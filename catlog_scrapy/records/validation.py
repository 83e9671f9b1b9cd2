"""Validation of items against their record types."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from itemadapter import ItemAdapter
from pydantic import ValidationError

from catlog_scrapy.plurals import counted
from catlog_scrapy.records.record import Record, link_of
from catlog_scrapy.records.storable import NotStorable
from catlog_scrapy.records.yields import Removed, Unchanged
from catlog_scrapy.redaction import find_secret_in, redact

# Kind, key, JSON data and link. The data is None for Unchanged and JSON's null for Removed.
Row = tuple[str, str, bytes | None, str | None]
REMOVED_DATA = b"null"
# A rejected item as ASCII text, and the reasons.
Rejection = tuple[str, list[str]]
# The place of a branch of a union whose input is checked first; the branch itself is enough.
CHECKED = re.compile(r"function-(?:before|after)\[\w+\(\), (.*)\]")
CHECKED_OBJECT = "function-wrap[require_distinct_members()]"


@dataclass(slots=True)
class ValidatedItem:
    """Item with the rows of its valid records and the rejections of its invalid records.

    `cursor` is the position that the item reports.
    """

    item: Any
    rows: list[Row] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    cursor: str | None = None


class ItemValidator:
    """Validator of items against *records*, the record types by kind.

    *context* is passed to the types' pydantic validators. A record that contains a value of
    `secrets` (by name) is rejected.
    """

    def __init__(self, records: Mapping[str, type[Record]], context: object = None) -> None:
        self.records = records
        self.context = context
        self.secrets: Mapping[str, str] = {}
        self.only = next(iter(records.values())) if len(records) == 1 else None
        self.is_only_choice = self.only is not None and not self.only.has_condition()
        # The kinds of a declaration, among which each item is routed.
        self.declared = [record for record in records.values() if record.is_declared]

    def validate(self, item: Any, record: type[Record] | None, validated: ValidatedItem) -> None:
        """Add the row or the rejection of *item* to *validated*.

        *record* is the type of an item that does not name its own.
        """
        try:
            chosen = self._record_type(item, record)
            if isinstance(item, Unchanged):
                data = REMOVED_DATA if isinstance(item, Removed) else None
                self._add((chosen.kind, chosen.parse_key(item.values()), data, None), validated)
                return
            values = item if type(item) is dict else ItemAdapter(item).asdict()
            built: Record = chosen.__pydantic_validator__.validate_python(
                values, context=self.context
            )
            self._add((chosen.kind, *built.row(), link_of(built)), validated)
        except ValidationError as error:
            validated.rejections.append(make_rejection(item, validation_reasons(error)))
        except (NotStorable, UnknownRecordType) as error:
            validated.rejections.append(make_rejection(item, [str(error)]))

    def _add(self, row: Row, validated: ValidatedItem) -> None:
        _, key, data, _ = row
        if self.secrets:
            self.refuse_secrets(f"{key} {(data or b'').decode()}")
        validated.rows.append(row)

    def refuse_secrets(self, text: str) -> None:
        """Raise NotStorable if *text* contains a secret; masking would change the record."""
        if name := find_secret_in(self.secrets, text):
            raise NotStorable(f"it contains the secret {name!r}, which must not be stored")

    def _record_type(self, item: Any, record: type[Record] | None) -> type[Record]:
        if type(item) is dict and record is None and self.is_only_choice and self.only:
            return self.only  # the common case, without the costly checks below
        named: type[Record] | None = getattr(item, "record", None) or record
        is_routed = named is None and self.declared and not self.is_only_choice
        if is_routed and not isinstance(item, Unchanged) and ItemAdapter.is_item(item):
            return self._route(item)
        chosen = named or self.only
        if chosen is None:
            kinds = ", ".join(self.records)
            if self.declared:
                raise UnknownRecordType(
                    f"the operation declares several kinds ({kinds}), and a"
                    f" {type(item).__name__} does not name one; yield an item"
                )
            raise UnknownRecordType(
                f"the item does not name its type, and the spider has several ({kinds});"
                " yield Type.draft(...)"
            )
        if self.records.get(chosen.kind) is not chosen:
            raise UnknownRecordType(
                f"{chosen.__name__} is not a record type of the spider; add it to `record`"
            )
        if not isinstance(item, Unchanged) and not ItemAdapter.is_item(item):
            raise UnknownRecordType(f"a {type(item).__name__} is not an item; yield a dict")
        return chosen

    def _route(self, item: Any) -> type[Record]:
        """Return the only declared kind that takes *item*; those with conditions come first."""
        values = ItemAdapter(item)
        found = [record for record in self.declared if record.takes_item(item, values)]
        found = [record for record in found if record.has_condition()] or found
        if len(found) == 1:
            return found[0]
        kinds = ", ".join(record.kind for record in found or self.declared)
        if found:
            raise UnknownRecordType(f"the item fits several kinds ({kinds}); narrow their `when`")
        raise UnknownRecordType(
            f"the item fits none of the kinds {kinds}: no `when` holds, and no kind without `when`"
            " finds its key"
        )


class UnknownRecordType(ValueError):
    """Item without a record type of its spider; the message is stored with the rejected item."""


def make_rejection(item: Any, reasons: Sequence[str]) -> Rejection:
    """Make the rejection of *item*, with its secrets masked."""
    return redact(describe_item(item)), [redact(reason) for reason in reasons]


def validation_reasons(error: ValidationError) -> list[str]:
    """Return pydantic's findings, one line per field."""
    try:
        return [
            f"{'.'.join(map(_step, part['loc']))}: {part['msg']}"
            for part in error.errors(include_url=False, include_input=False)
        ]
    except UnicodeError:
        count = counted(error.error_count(), "invalid field")
        return [f"{count}; the messages are not valid Unicode"]


def _step(part: str | int) -> str:
    return CHECKED.sub(r"\1", str(part).replace(CHECKED_OBJECT, "dict"))


def describe_item(item: Any) -> str:
    """Return any item as text, with escapes for what UTF-8 cannot hold."""
    try:
        values = ItemAdapter(item).asdict() if ItemAdapter.is_item(item) else item
        text = json.dumps(values, default=repr, ensure_ascii=False)
        return text.encode("utf-8", "backslashreplace").decode()
    except (TypeError, ValueError, RecursionError):
        return f"<{type(item).__name__} that cannot be written as JSON>"
