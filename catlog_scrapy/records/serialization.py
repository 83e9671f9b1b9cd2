"""Serializers of core schemas: equal values inside a record get one JSON text."""

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from functools import partial
from typing import Any

from pydantic_core import core_schema, to_json

from catlog_scrapy.records.core_schemas import has_loose_names, kind_of, parts_of, surround
from catlog_scrapy.records.numbers import number_text
from catlog_scrapy.records.stable_json import iterate_stably, require_distinct_names, stabilize


def write_once(
    schema: Any, root: Any, *, is_nested: bool = False, has_serializer: bool = False
) -> None:
    """Sort sets inside the model *root*, and stabilize values of any type in its inner models.

    The record itself stabilizes its own fields: see `Record.row`. *has_serializer* says whether a
    function of the record type serializes the value.
    """
    kind = kind_of(schema)
    has_serializer = has_serializer or (
        bool(kind) and _function_of(schema) not in (None, *OWN_SERIALIZERS)
    )
    if kind in ("model", "dataclass") and schema["cls"] is not root:
        is_nested = True
        # else the inner model would write null instead of NaN, which is refused
        schema["config"] = {**(schema.get("config") or {}), "ser_json_inf_nan": "constants"}
    if kind == "definitions":
        is_nested = True  # the record type itself may be an inner model
    if kind in ("set", "frozenset") and _function_of(schema) in (None, _serialize_set):
        # pydantic may have put other schemas in place of references in an earlier serialization
        schema["serialization"] = _sorted(schema.get("items_schema"))
    if is_nested and kind == "any":
        schema.setdefault("serialization", STABLE)
    if is_nested and kind and has_loose_names(schema):
        schema.setdefault("serialization", DISTINCT)
    if is_nested and kind == "model" and _allows_extras(schema):
        _fields_of(schema).setdefault("extras_schema", {"type": "any"})
    for part in parts_of(schema):
        write_once(part, root, is_nested=is_nested, has_serializer=has_serializer)
    if has_serializer and kind in ("set", "frozenset"):
        surround(schema, partial(core_schema.no_info_after_validator_function, iterate_stably))


def _allows_extras(model: Mapping[str, Any]) -> bool:
    return (model.get("config") or {}).get("extra_fields_behavior") == "allow"


def _fields_of(model: dict[str, Any]) -> dict[str, Any]:
    fields = model
    while "schema" in fields:
        fields = fields["schema"]
    return fields


def write_numbers_once(field: Mapping[str, Any]) -> None:
    """Give decimal numbers inside a jsonb field one notation, since jsonb compares their texts."""
    inner = field
    while inner["type"] not in ("list", "model") and "schema" in inner:
        inner = inner["schema"]
    if inner["type"] != "decimal":
        _write_numbers_once(field)


def _write_numbers_once(schema: Any) -> None:
    if kind_of(schema) == "decimal":
        schema.setdefault("serialization", ONE_NOTATION)
    for part in parts_of(schema):
        _write_numbers_once(part)


def _sorted(items: Any) -> Any:
    """Return the serialization of a set as a sorted list, by the schema of its items."""
    return core_schema.wrap_serializer_function_ser_schema(
        _serialize_set, schema=core_schema.list_schema(items)
    )


def _function_of(schema: Mapping[str, Any]) -> Any:
    """Return the serializer of a core schema; None for pydantic's own serialization."""
    return schema.get("serialization", {}).get("function")


def _serialize_set(value: Iterable[Any], handler: Callable[[Any], Any]) -> Any:
    return sorted(handler(list(value)), key=to_json)


def _serialize_decimal(value: Decimal) -> str:
    return number_text(value) if isinstance(value, Decimal) and value.is_finite() else str(value)


def _serialize_names(value: Any, handler: Callable[[Any], Any]) -> Any:
    if isinstance(value, Mapping):
        require_distinct_names(value)
    return handler(value)


STABLE = core_schema.plain_serializer_function_ser_schema(stabilize, when_used="json")
DISTINCT = core_schema.wrap_serializer_function_ser_schema(_serialize_names, when_used="json")
# Only inside jsonb, which compares texts: a numeric column compares numbers, as they are given.
ONE_NOTATION = core_schema.plain_serializer_function_ser_schema(
    _serialize_decimal, return_schema=core_schema.str_schema(), when_used="json-unless-none"
)
OWN_SERIALIZERS = (_serialize_set, _serialize_decimal, _serialize_names, stabilize)
