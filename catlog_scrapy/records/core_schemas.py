"""Core schemas of pydantic: their parts, copies, changes, and validators built from them alone."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from pydantic_core import SchemaSerializer, SchemaValidator, core_schema

NOT_SCHEMAS = frozenset({"metadata", "default", "serialization"})
# Types of core schemas whose different values are different names of members in JSON.
DISTINCT_NAMES = frozenset({"str", "int", "float", "bool", "uuid", "date", "datetime", "decimal"})
IS_SURROUNDED = "catlog_is_surrounded"


def kind_of(schema: Any) -> str:
    """Return the type of a core schema; empty for lists and for schemas by name."""
    kind = schema.get("type") if isinstance(schema, dict) else None
    return kind if isinstance(kind, str) else ""  # a field may have the name `type`


def parts_of(schema: Any) -> Iterator[Any]:
    """Yield the schemas directly inside a core schema, inside a list or inside schemas by name."""
    if isinstance(schema, list | tuple):
        yield from schema
    elif isinstance(schema, dict):
        skipped = NOT_SCHEMAS if kind_of(schema) else ()
        yield from (part for name, part in schema.items() if name not in skipped)


def model_of(schema: Any) -> Any:
    """Return the class of the model or dataclass that a core schema describes, or None."""
    while "cls" not in schema and "schema" in schema:
        schema = schema["schema"]
    return schema.get("cls")


def copy_schema(schema: Any) -> Any:
    """Copy a core schema, whose inner models other record types may use."""
    if isinstance(schema, list | tuple):
        return type(schema)(map(copy_schema, schema))
    if not isinstance(schema, dict):
        return schema
    skipped = NOT_SCHEMAS if kind_of(schema) else ()
    return {name: part if name in skipped else copy_schema(part) for name, part in schema.items()}


def holds_any(schema: Any) -> bool:
    """Return whether a core schema accepts values of any type, apart from models inside it."""
    return _contains(schema, lambda part: part.get("type") == "any")


def holds_loose_names(schema: Any) -> bool:
    """Return whether a core schema accepts objects with members such as 1 and "1"."""
    return _contains(schema, has_loose_names)


def _contains(schema: Any, is_found: Callable[[Any], bool]) -> bool:
    kind = kind_of(schema)
    if kind in ("model", "dataclass"):
        return False
    return (bool(kind) and is_found(schema)) or any(
        _contains(part, is_found) for part in parts_of(schema)
    )


def has_loose_names(schema: Mapping[str, Any]) -> bool:
    """Return whether a core schema is that of an object with members such as 1 and "1"."""
    if schema.get("type") != "dict":
        return False
    names = schema.get("keys_schema", {"type": "any"})
    while "schema" in names:
        names = names["schema"]
    return names["type"] not in DISTINCT_NAMES


def check_input(schema: dict[str, Any], check: Callable[[Any], Any]) -> None:
    """Put *check* before the validation of a core schema, in place and only once."""
    surround(schema, partial(core_schema.no_info_before_validator_function, check))


def surround(schema: dict[str, Any], make: Callable[[Any], Mapping[str, Any]]) -> None:
    """Replace a core schema by what *make* makes of it, in place and only once.

    The schemas that several parts of a record type share are visited several times.
    """
    if schema.get("metadata", {}).get(IS_SURROUNDED):
        return
    inner = {**schema, "metadata": {**schema.get("metadata", {}), IS_SURROUNDED: True}}
    outer = dict(make(inner))
    for name in ("ref", "serialization"):
        if name in inner:
            outer[name] = inner.pop(name)
    schema.clear()
    schema.update(outer)


def build_validator(schema: Any, config: Any) -> SchemaValidator:
    """Build a validator that validates inner models by *schema* too."""
    with _without_validators_of_models(schema):
        return SchemaValidator(schema, config)


def build_serializer(schema: Any, config: Any) -> SchemaSerializer:
    """Build a serializer that serializes inner models by *schema* too."""
    with _without_validators_of_models(schema):
        return SchemaSerializer(schema, config)


@contextmanager
def _without_validators_of_models(schema: Any) -> Iterator[None]:
    """Mark the models as incomplete, else pydantic-core would take their existing validators."""
    models = [model for model in _models(schema) if vars(model).get("__pydantic_complete__")]
    for model in models:
        model.__pydantic_complete__ = False
    try:
        yield
    finally:
        for model in models:
            model.__pydantic_complete__ = True


def _models(schema: Any) -> set[Any]:
    found = {schema["cls"]} if kind_of(schema) in ("model", "dataclass", "typed-dict") else set()
    return found.union(*map(_models, parts_of(schema)))
