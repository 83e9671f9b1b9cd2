"""Record types of spiders and of declarations."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, create_model

from catlog_scrapy.records.inputs import empty_as_null
from catlog_scrapy.records.record import FieldLists, Record, RecordTypeError
from catlog_scrapy.records.sql_names import field_mistake
from catlog_scrapy.records.sql_types import FIELD_TYPES, UNIX_TIMES

# Names that pydantic gives a meaning of its own.
PYDANTIC_NAMES = frozenset(name for name in dir(BaseModel) if name.startswith("model_"))


def make_record_type(
    kind: str,
    key: Sequence[str],
    fields: Mapping[str, str] | None = None,
    *,
    index: FieldLists = (),
    unique: FieldLists = (),
    untracked: Sequence[str] = (),
    rules: Mapping[str, Any] | None = None,
) -> type[Record]:
    """Make a record type from an operation's declaration, for a spider without one.

    *fields* maps field names to types (see FIELD_TYPES); a key field that *fields* lacks is text.
    Undeclared fields of an item are stored with its data. *rules* say how items are read; see
    `Record.item_rules`. Raises RecordTypeError.
    """
    rules = dict(rules or {})
    types = {**dict.fromkeys(key, "text"), **(fields or {}), **rules.get("types", {})}
    _check_fields(kind, types)
    if unix_times := {name: type_ for name, type_ in types.items() if type_ in UNIX_TIMES}:
        rules["types"] = unix_times
    is_empty_null = bool(rules.get("empty_is_null"))
    definitions: dict[str, Any] = {
        name: (FIELD_TYPES[type_], ...)
        if name in key
        else (_optional(type_, is_empty_null=is_empty_null), None)
        for name, type_ in types.items()
    }
    with warnings.catch_warnings():
        # A field may hide a method of pydantic's that catlog does not call.
        warnings.filterwarnings("ignore", "Field name .* shadows an attribute", UserWarning)
        made = create_model(
            "".join(word.capitalize() for word in kind.split("_")),
            __base__=Record,
            __cls_kwargs__={
                "key": tuple(key),
                "view": kind,
                "index": index,
                "unique": unique,
                "untracked": untracked,
                "extra": "allow",
                "coerce_numbers_to_str": True,
            },
            **definitions,
        )
    made.item_rules, made.is_declared = rules, True
    return made


def _check_fields(kind: str, types: Mapping[str, str]) -> None:
    for name, type_ in types.items():
        mistake = field_mistake(name)
        if name in PYDANTIC_NAMES:
            mistake = f"the name {name!r} is reserved by pydantic; rename the field in the spider"
        if mistake:
            raise RecordTypeError(f"the kind {kind}: {mistake}.")
        if type_ not in FIELD_TYPES:
            raise RecordTypeError(
                f"{type_!r} is not a valid type of {name}; use one of {', '.join(FIELD_TYPES)}."
            )


def _optional(type_: str, *, is_empty_null: bool) -> Any:
    annotation = Any if type_ == "jsonb" else FIELD_TYPES[type_] | None
    return Annotated[annotation, BeforeValidator(empty_as_null)] if is_empty_null else annotation


def is_record_type(value: object) -> bool:
    """Return whether *value* is a record type, as a spider's attribute `record` needs."""
    return isinstance(value, type) and issubclass(value, Record)


def record_types(spider: Any) -> tuple[type[Record], ...]:
    """Return the record types in the attribute `record` of *spider* (a class or an object)."""
    declared = getattr(spider, "record", None)
    if declared is None:
        return ()
    return tuple(declared) if isinstance(declared, Iterable) else (declared,)
