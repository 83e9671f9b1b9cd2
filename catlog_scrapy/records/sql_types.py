"""SQL types of record fields, and their bounds."""

import datetime as dt
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import partial
from typing import Annotated, Any
from uuid import UUID

from pydantic import NaiveDatetime
from pydantic_core import core_schema

from catlog_scrapy.records.core_schemas import check_input, kind_of, parts_of, surround
from catlog_scrapy.records.inputs import (
    UnixTime,
    require_date,
    require_distinct_members,
    require_duration,
    require_number,
    require_text_number,
)
from catlog_scrapy.records.stable_json import sort_input

MAX_BIGINT = 2**63 - 1

# PostgreSQL's numeric has 131072 digits before the point and 16383 after it (manual, 8.1.2).
MAX_NUMERIC = Decimal("1E+131071")
MAX_NUMERIC_SCALE = 16383

# Every instant has a year from 1 to 9999 in UTC, so that Python can read it back.
FIRST_INSTANT = dt.datetime.min.replace(tzinfo=dt.UTC)
LAST_INSTANT = dt.datetime.max.replace(tzinfo=dt.UTC)
# PostgreSQL's interval counts microseconds in 64 bits.
MAX_INTERVAL = dt.timedelta(days=100_000_000)

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
    "date": dt.date,
    "time": dt.time,
    "timestamp": NaiveDatetime,
    "timestamptz": dt.datetime,
    "interval": dt.timedelta,
    "uuid": UUID,
    "jsonb": Any,
    "unix_seconds": Annotated[dt.datetime, UnixTime("seconds")],
    "unix_milliseconds": Annotated[dt.datetime, UnixTime("milliseconds")],
}
# Types of fields whose sources have Unix times; their SQL type is timestamptz.
UNIX_TIMES = frozenset({"unix_seconds", "unix_milliseconds"})
# Checks of inputs, by the type of a core schema.
INPUT_CHECKS: dict[str, Callable[[Any], Any]] = {
    "int": require_number,
    "float": require_number,
    "decimal": require_number,
    "date": require_date,
    "time": require_date,
    "datetime": require_date,
    "timedelta": require_duration,
    "list": sort_input,
    "tuple": sort_input,
    "generator": sort_input,
}


def bound_schema(schema: Any, *, takes_numbers: bool = False) -> None:
    """Narrow a core schema to the values of SQL types.

    Models inside are narrowed too. *takes_numbers* says whether text fields take numbers.
    """
    kind = kind_of(schema)
    if kind in ("model", "dataclass", "typed-dict"):
        takes_numbers = (schema.get("config") or {}).get("coerce_numbers_to_str", False)
    if kind:
        _bound(schema, kind)
    for part in parts_of(schema):
        bound_schema(part, takes_numbers=takes_numbers)
    check = _input_check(schema, kind)
    if kind == "str" and takes_numbers:
        check = require_text_number
    if check:
        check_input(schema, check)
    if kind == "dict" and "keys_schema" in schema:
        surround(
            schema,
            partial(core_schema.no_info_wrap_validator_function, require_distinct_members),
        )


def _bound(schema: dict[str, Any], kind: str) -> None:
    match kind:
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
            _bound_datetime(schema)
        case "time":
            schema["tz_constraint"] = "naive"  # the SQL type has no time zone
        case "timedelta":
            schema["ge"] = max(schema.get("ge", -MAX_INTERVAL), -MAX_INTERVAL)
            schema["le"] = min(schema.get("le", MAX_INTERVAL), MAX_INTERVAL)


def _bound_datetime(schema: dict[str, Any]) -> None:
    schema.setdefault("tz_constraint", "aware")
    if schema["tz_constraint"] == "naive":
        return
    if "gt" not in schema:
        schema.setdefault("ge", FIRST_INSTANT)
    if "lt" not in schema:
        schema.setdefault("le", LAST_INSTANT)


def _input_check(schema: Mapping[str, Any], kind: str) -> Callable[[Any], Any] | None:
    is_number = kind == "enum" and schema.get("sub_type") in ("int", "float")
    if kind == "literal":
        types = {type(word) for word in schema["expected"]}
        is_number = bool not in types and not types.isdisjoint({int, float})
    return require_number if is_number else INPUT_CHECKS.get(kind)


def field_schemas(schema: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the core schemas of a model's fields by name, and the shared schemas by reference."""
    shared: dict[str, Any] = {}
    while schema["type"] != "model-fields":
        shared |= {part["ref"]: part for part in schema.get("definitions", ())}
        schema = _inner(schema, shared)
    return {name: field["schema"] for name, field in schema["fields"].items()}, shared


def model_config_of(schema: Any) -> Any:
    """Return the configuration of a model, by its core schema."""
    shared: dict[str, Any] = {}
    while schema["type"] != "model":
        shared |= {part["ref"]: part for part in schema.get("definitions", ())}
        schema = _inner(schema, shared)
    return schema.get("config")


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
