"""SQL types of record fields, and their bounds."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from catlog_scrapy.records.unordered import SORT_SET

MAX_BIGINT = 2**63 - 1

# PostgreSQL's numeric has 131072 digits before the point and 16383 after it (manual, 8.1.2).
MAX_NUMERIC = Decimal("1E+131071")
MAX_NUMERIC_SCALE = 16383

# PostgreSQL cuts longer identifiers (NAMEDATALEN - 1).
MAX_NAME_BYTES = 63

SQL_TYPES = {
    "bool": "boolean",
    "int": "bigint",
    "float": "double precision",
    "decimal": "numeric",
    "str": "text",
    "date": "date",
    "time": "time",
    "timedelta": "interval",
    "uuid": "uuid",
    "url": "text",
    "multi-host-url": "text",
}

# Types that a declaration may give to the fields of a foreign item.
FIELD_TYPES: dict[str, Any] = {
    "text": str,
    "bigint": int,
    "double precision": float,
    "numeric": Decimal,
    "boolean": bool,
    "jsonb": Any,
}


def bound_schema(schema: Any) -> None:
    """Narrow numbers and datetimes in a core schema to their SQL types, and sort sets in JSON."""
    if isinstance(schema, list | tuple):
        for part in schema:
            bound_schema(part)
    if not isinstance(schema, dict):
        return
    match schema.get("type"):
        case "int":
            schema["ge"] = max(schema.get("ge", -MAX_BIGINT - 1), -MAX_BIGINT - 1)
            schema["le"] = min(schema.get("le", MAX_BIGINT), MAX_BIGINT)
        case "float":
            schema["allow_inf_nan"] = False
        case "decimal":
            schema["ge"] = max(schema.get("ge", -MAX_NUMERIC), -MAX_NUMERIC)
            schema["le"] = min(schema.get("le", MAX_NUMERIC), MAX_NUMERIC)
            schema.setdefault("decimal_places", MAX_NUMERIC_SCALE)
        case "datetime":
            schema.setdefault("tz_constraint", "aware")
        case "set" | "frozenset":
            schema.setdefault("serialization", SORT_SET)
    for name, part in schema.items():
        if name not in ("metadata", "default", "serialization"):
            bound_schema(part)


def field_schemas(schema: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the core schemas of a model's fields by name, and the shared schemas by reference."""
    shared: dict[str, Any] = {}
    while schema["type"] != "model-fields":
        shared |= {part["ref"]: part for part in schema.get("definitions", ())}
        schema = _inner(schema, shared)
    return {name: field["schema"] for name, field in schema["fields"].items()}, shared


def _inner(schema: Any, shared: Mapping[str, Any]) -> Any:
    return shared[schema["schema_ref"]] if "schema_ref" in schema else schema["schema"]


def sql_type_of(schema: Any, shared: Mapping[str, Any]) -> str:
    """Return the SQL type of a core schema; jsonb for a schema without its own SQL type."""
    while schema["type"] not in ("list", "model") and (
        "schema" in schema or "schema_ref" in schema
    ):
        schema = _inner(schema, shared)
    kind = schema["type"]
    if kind == "datetime":
        return "timestamp" if schema.get("tz_constraint") == "naive" else "timestamptz"
    if kind == "literal":
        return "text" if all(isinstance(word, str) for word in schema["expected"]) else "jsonb"
    if kind == "enum":
        return {"str": "text", "int": "bigint", "float": "double precision"}.get(
            schema.get("sub_type", ""), "jsonb"
        )
    return SQL_TYPES.get(kind, "jsonb")


def allows_nan(schema: Any) -> bool:
    """Return whether *schema* accepts NaN, as a plain model inside a record does."""
    if isinstance(schema, list | tuple):
        return any(allows_nan(part) for part in schema)
    if not isinstance(schema, dict):
        return False
    if schema.get("type") == "float" and schema.get("allow_inf_nan", True):
        return True
    return any(
        allows_nan(part)
        for name, part in schema.items()
        if name not in ("metadata", "default", "serialization")
    )
