"""Texts of key values: equal values of a SQL type have one text, which identifies a record.

Values may be those of a validated record or those that psycopg2 reads from its columns.
"""

import datetime as dt
from collections.abc import Callable, Sequence
from decimal import Decimal
from enum import Enum
from typing import Any

import orjson
from pydantic_core import to_jsonable_python

from catlog_scrapy.records.numbers import number_text
from catlog_scrapy.records.stable_json import stabilize

# SQL types whose values `str` writes in one way; a key of several such fields needs no conversion.
PLAIN_KEY_TYPES = frozenset({"text", "bigint"})


def key_text(values: Sequence[Any], types: Sequence[str]) -> str:
    """Return the text key of valid *values* of the SQL *types*.

    A single value becomes its own text; several values become a JSON array. Raises
    orjson.JSONEncodeError for a value that JSON cannot hold.
    """
    parts = [key_part(value, type_) for value, type_ in zip(values, types, strict=True)]
    return join_parts(parts, types)


def join_parts(parts: Sequence[Any], types: Sequence[str]) -> str:
    """Return the text key of *parts*, which `key_part` has returned for values of *types*."""
    if len(parts) != 1 or types[0] == "jsonb":
        option = orjson.OPT_SORT_KEYS if "jsonb" in types else 0
        dumped = parts[0] if len(parts) == 1 else parts
        return orjson.dumps(dumped, default=str, option=option).decode()
    return str(parts[0].value if isinstance(parts[0], Enum) else parts[0])


def key_part(value: Any, sql_type: str) -> Any:
    """Return the text, the integer or, for jsonb, the JSON value that stands for *value*."""
    if isinstance(value, Enum):
        value = value.value
    write = WRITERS.get(sql_type)
    return value if value is None or write is None else write(value)


def _numeric(value: Any) -> str:
    return number_text(value if isinstance(value, Decimal) else Decimal(str(value)))


def _double(value: Any) -> str:
    return repr(float(value) + 0.0)  # -0.0 + 0.0 is 0.0


def _boolean(value: Any) -> str:
    return "true" if value else "false"


def _timestamptz(value: Any) -> str:
    if not isinstance(value, dt.datetime):
        return str(value)  # a column may hold what Python cannot: see db/typecasters.py
    return value.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")


def _iso_text(value: Any) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _interval(value: Any) -> str:
    return str(to_jsonable_python(value, timedelta_mode="iso8601"))


def _json(value: Any) -> Any:
    """Return a JSON value with its numbers in one notation, as jsonb compares them."""
    return _numbers(to_jsonable_python(stabilize(value), timedelta_mode="float"))


def _numbers(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(Decimal(repr(value)))
    if isinstance(value, list):
        return [_numbers(part) for part in value]
    if isinstance(value, dict):
        return {name: _numbers(part) for name, part in value.items()}
    return value


WRITERS: dict[str, Callable[[Any], Any]] = {
    "numeric": _numeric,
    "double precision": _double,
    "boolean": _boolean,
    "timestamptz": _timestamptz,
    "timestamp": _iso_text,
    "date": _iso_text,
    "time": _iso_text,
    "interval": _interval,
    "uuid": str,
    "jsonb": _json,
}
