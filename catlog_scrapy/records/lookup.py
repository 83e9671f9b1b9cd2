"""Record types of spiders and of declarations."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import create_model

from catlog_scrapy.records.record import Record, RecordTypeError
from catlog_scrapy.records.sql_types import (
    FIELD_TYPES,
)


def make_record_type(
    kind: str, key: Sequence[str], fields: Mapping[str, str] | None = None
) -> type[Record]:
    """The record type of a spider that has none: *kind* and *key* as its operation declares them.

    *fields* maps names to SQL types (see FIELD_TYPES); a key field without one is text. What else
    an item holds is kept in its data. Raises RecordTypeError.
    """
    types = {**dict.fromkeys(key, "text"), **(fields or {})}
    for name, sql_type in types.items():
        if sql_type not in FIELD_TYPES:
            raise RecordTypeError(
                f"{name} has the type {sql_type!r}; use one of {', '.join(FIELD_TYPES)}."
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
            "extra": "allow",
            "coerce_numbers_to_str": True,
        },
        **definitions,
    )


def is_record_type(value: object) -> bool:
    """Whether a spider may name *value* as its `record`."""
    return isinstance(value, type) and issubclass(value, Record)


def record_types(spider: Any) -> tuple[type[Record], ...]:
    """The record types that *spider* (a class or an object) says it yields: its `record`."""
    said = getattr(spider, "record", None)
    if said is None:
        return ()
    return tuple(said) if isinstance(said, Iterable) else (said,)
