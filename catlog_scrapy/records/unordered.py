"""Stable JSON: equal values get equal texts, by an order of sets and one notation of decimals."""

import dataclasses
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Set
from decimal import Decimal
from typing import Any

from pydantic import BaseModel
from pydantic_core import core_schema, from_json, to_json

from catlog_scrapy.records.numbers import number_text

PLAIN_TYPES = frozenset({str, int, float, bool, type(None)})
# Types of core schemas whose values are sets or decimal numbers, or may be.
UNSTABLE_TYPES = frozenset({"set", "frozenset", "any", "decimal"})
# Types of core schemas whose different values are different names of members in JSON.
DISTINCT_NAMES = frozenset({"str", "int", "float", "bool", "uuid", "date", "datetime", "decimal"})
NOT_VALUES = ("metadata", "default", "serialization", "keys_schema")


def stabilize(value: Any) -> Any:
    """Return *value* with a sorted list in place of each set, and one notation of decimals.

    Raises ValueError if two members of an object would have one name.
    """
    try:
        return _stabilize(value)
    except RecursionError:  # the serializer has a better error for a circular reference
        return value


def stabilize_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """Stabilize the fields of a record; a decimal number keeps the notation of its column."""
    return {
        name: value if type(value) is Decimal else stabilize(value)
        for name, value in values.items()
    }


def _stabilize(value: Any) -> Any:
    if type(value) in PLAIN_TYPES:
        return value
    if isinstance(value, Mapping):
        require_distinct_names(value)
        return {name: _stabilize(part) for name, part in value.items()}
    if isinstance(value, list | tuple | deque):
        return [_stabilize(part) for part in value]
    if isinstance(value, Set):
        return sorted(map(_stabilize, value), key=to_json)
    return _stabilize_object(value)


def _stabilize_object(value: Any) -> Any:
    if isinstance(value, Decimal):
        return number_text(value) if value.is_finite() else value
    is_dataclass = dataclasses.is_dataclass(value) and not isinstance(value, type)
    if isinstance(value, BaseModel) or (is_dataclass and hasattr(value, "__pydantic_serializer__")):
        return _stabilize(value.__pydantic_serializer__.to_python(value))
    if is_dataclass:
        fields = dataclasses.fields(value)
        return {field.name: _stabilize(getattr(value, field.name)) for field in fields}
    return value


def require_distinct_names(value: Mapping[Any, Any]) -> None:
    """Raise ValueError if two members of *value* have one name in JSON, such as 1 and "1"."""
    if all(type(name) is str for name in value):
        return
    for name in value:
        if isinstance(name, float | Decimal) and not math.isfinite(name):
            raise ValueError(f"an object has the member {name}, which JSON cannot hold")
    names = Counter(next(iter(from_json(to_json({name: None})))) for name in value)
    for name, count in names.items():
        if count > 1:
            raise ValueError(f"{count} members of an object have the name {name!r}")


def require_distinct_names_inside(value: Any) -> None:
    """Raise ValueError if an object inside *value* has two members of one name in JSON."""
    if isinstance(value, Mapping):
        require_distinct_names(value)
        value = value.values()
    elif not isinstance(value, list | tuple | Set | deque):
        return
    for part in value:
        require_distinct_names_inside(part)


def sort_input(value: Any) -> Any:
    """Return a list in a stable order if *value* is a set, as pydantic takes sets for lists."""
    if type(value) is not list and isinstance(value, Set):
        return sort_by_json(value)
    return value


def sort_by_json(values: Iterable[Any]) -> list[Any]:
    """Sort *values* by their JSON; values without JSON keep their order."""
    listed = list(values)
    try:
        return sorted(listed, key=lambda value: to_json(stabilize(value)))
    except ValueError:
        return listed


def sort_inputs(value: Any) -> Any:
    """Return *value* with a sorted list in place of each set inside its dicts and lists."""
    if type(value) in PLAIN_TYPES:
        return value
    if type(value) is dict:
        return {name: sort_inputs(part) for name, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(sort_inputs, value))
    return sort_input(value)


def contains_model(schema: Any, root: Any) -> bool:
    """Return whether there are models inside the model *root*, by its core schema.

    Such a model has a validator of its own, which takes sets for lists in any order.
    """
    if isinstance(schema, list | tuple):
        return any(contains_model(part, root) for part in schema)
    if not isinstance(schema, dict):
        return False
    if schema.get("type") in ("model", "dataclass") and schema["cls"] is not root:
        return True
    return any(
        contains_model(part, root) for name, part in schema.items() if name not in NOT_VALUES
    )


def is_unstable_inside(schema: Any, root: Any, *, is_nested: bool = False) -> bool:
    """Return whether a model inside the model *root* may hold values without one JSON text.

    Such a model has a serializer of its own, which does not stabilize them.
    """
    if isinstance(schema, list | tuple):
        return any(is_unstable_inside(part, root, is_nested=is_nested) for part in schema)
    if not isinstance(schema, dict):
        return False
    kind = schema.get("type")
    is_nested = is_nested or (kind in ("model", "dataclass") and schema["cls"] is not root)
    return (is_nested and (kind in UNSTABLE_TYPES or _has_loose_names(schema))) or any(
        is_unstable_inside(part, root, is_nested=is_nested)
        for name, part in schema.items()
        if name not in NOT_VALUES
    )


def holds_any(schema: Any) -> bool:
    """Return whether a core schema accepts values of any type, apart from models inside it."""
    return _contains(schema, lambda part: part.get("type") == "any")


def holds_loose_names(schema: Any) -> bool:
    """Return whether a core schema accepts objects with members such as 1 and "1"."""
    return _contains(schema, _has_loose_names)


def _contains(schema: Any, is_found: Callable[[Any], bool]) -> bool:
    if isinstance(schema, list | tuple):
        return any(_contains(part, is_found) for part in schema)
    if not isinstance(schema, dict) or schema.get("type") in ("model", "dataclass"):
        return False
    return is_found(schema) or any(
        _contains(part, is_found) for name, part in schema.items() if name not in NOT_VALUES
    )


def _has_loose_names(schema: Mapping[str, Any]) -> bool:
    if schema.get("type") != "dict":
        return False
    names = schema.get("keys_schema", {"type": "any"})
    while "schema" in names:
        names = names["schema"]
    return names["type"] not in DISTINCT_NAMES


def _serialize_set(value: Any, handler: Callable[[Any], Any]) -> Any:
    return sorted(handler(value), key=to_json)


def _serialize_decimal(value: Decimal) -> str:
    return number_text(value) if isinstance(value, Decimal) and value.is_finite() else str(value)


SORT_SET = core_schema.wrap_serializer_function_ser_schema(_serialize_set, when_used="json")
# Only inside jsonb, which compares texts: a numeric column compares numbers, as they are given.
ONE_NOTATION = core_schema.plain_serializer_function_ser_schema(
    _serialize_decimal, return_schema=core_schema.str_schema(), when_used="json-unless-none"
)
