"""Core schemas of pydantic: their parts, copies of them, and validators built from them alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic_core import SchemaSerializer, SchemaValidator

NOT_SCHEMAS = frozenset({"metadata", "default", "serialization"})


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
