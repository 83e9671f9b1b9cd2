"""Order of sets in JSON: equal sets get equal texts, whatever the process that writes them."""

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel
from pydantic_core import core_schema, to_json

PLAIN_TYPES = frozenset({str, int, float, bool, type(None)})
# Types of core schemas whose values are sets, or may be.
SET_TYPES = frozenset({"set", "frozenset", "any"})


def sort_sets(value: Any) -> Any:
    """Return *value* with a sorted list in place of each set inside it."""
    try:
        return _sort_sets(value)
    except RecursionError:  # the serializer has a better error for a circular reference
        return value


def _sort_sets(value: Any) -> Any:
    kind = type(value)
    if kind in PLAIN_TYPES:
        return value
    if kind is dict:
        return {name: _sort_sets(part) for name, part in value.items()}
    if kind is list or kind is tuple:
        return [_sort_sets(part) for part in value]
    if kind is set or kind is frozenset:
        return sorted(map(_sort_sets, value), key=to_json)
    if isinstance(value, BaseModel):
        return _sort_sets(value.__pydantic_serializer__.to_python(value))
    return value


def has_nested_sets(schema: Any, root: Any, *, is_nested: bool = False) -> bool:
    """Return whether a model inside the model *root* may contain sets, by its core schema.

    Such a model has a serializer of its own, which does not sort them.
    """
    if isinstance(schema, list | tuple):
        return any(has_nested_sets(part, root, is_nested=is_nested) for part in schema)
    if not isinstance(schema, dict):
        return False
    is_nested = is_nested or (schema.get("type") == "model" and schema["cls"] is not root)
    return (is_nested and schema.get("type") in SET_TYPES) or any(
        has_nested_sets(part, root, is_nested=is_nested)
        for name, part in schema.items()
        if name not in ("metadata", "default", "serialization")
    )


def holds_any(schema: Any) -> bool:
    """Return whether a core schema accepts values of any type, apart from models inside it."""
    if isinstance(schema, list | tuple):
        return any(map(holds_any, schema))
    if not isinstance(schema, dict) or schema.get("type") == "model":
        return False
    return schema.get("type") == "any" or any(
        holds_any(part)
        for name, part in schema.items()
        if name not in ("metadata", "default", "serialization")
    )


def _serialize_set(value: Any, handler: Callable[[Any], Any]) -> Any:
    return sorted(handler(value), key=to_json)


SORT_SET = core_schema.wrap_serializer_function_ser_schema(_serialize_set, when_used="json")
