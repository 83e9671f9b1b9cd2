"""Record types of spiders and of declarations."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import create_model

from catlog_scrapy.records.record import FieldLists, Record, RecordTypeError
from catlog_scrapy.records.sql_types import FIELD_TYPES


def make_record_type(
    kind: str,
    key: Sequence[str],
    fields: Mapping[str, str] | None = None,
    *,
    index: FieldLists = (),
    unique: FieldLists = (),
) -> type[Record]:
    """Make a record type from an operation's declaration, for a spider without one.

    *fields* maps field names to SQL types (see FIELD_TYPES); a key field that *fields* lacks is
    text. Undeclared fields of an item are stored with its data. Raises RecordTypeError.
    """
    types = {**dict.fromkeys(key, "text"), **(fields or {})}
    for name, sql_type in types.items():
        if sql_type not in FIELD_TYPES:
            raise RecordTypeError(
                f"{sql_type!r} is not a valid type of {name}; use one of {', '.join(FIELD_TYPES)}."
            )
    definitions: dict[str, Any] = {
        name: (
            (FIELD_TYPES[sql_type], ...)
            if name in key
            else (FIELD_TYPES[sql_type] | None if sql_type != "jsonb" else Any, None)
        )
        for name, sql_type in types.items()
    }
    return create_model(
        "".join(word.capitalize() for word in kind.split("_")),
        __base__=Record,
        __cls_kwargs__={
            "key": tuple(key),
            "view": kind,
            "index": index,
            "unique": unique,
            "extra": "allow",
            "coerce_numbers_to_str": True,
        },
        **definitions,
    )


def is_record_type(value: object) -> bool:
    """Return whether *value* is a record type, as a spider's attribute `record` needs."""
    return isinstance(value, type) and issubclass(value, Record)


def record_types(spider: Any) -> tuple[type[Record], ...]:
    """Return the record types in the attribute `record` of *spider* (a class or an object)."""
    declared = getattr(spider, "record", None)
    if declared is None:
        return ()
    return tuple(declared) if isinstance(declared, Iterable) else (declared,)
