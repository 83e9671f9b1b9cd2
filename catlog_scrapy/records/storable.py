"""Values that are valid for pydantic and that PostgreSQL cannot store."""

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from catlog_scrapy.records.sql_types import MAX_NUMERIC_SCALE

# Text in JSON that jsonb may not accept. U+FFFD replaces a lone surrogate in a dict's key.
SUSPECT_JSON = re.compile(rb"\\u0000|NaN|Infinity|\xef\xbf\xbd|E-\d{5}")
MAX_INTEGER_DIGITS = 1000
LONG_INTEGER = re.compile(rb"\d{%d}" % (MAX_INTEGER_DIGITS + 1))
# A longer integer covers ten probes in a row. The pattern of the integer itself would cost more
# than the record's validation.
PROBE_BYTES = MAX_INTEGER_DIGITS // 10
LONG_INTEGER_PROBES = re.compile(rb"\d{10}")


class NotStorable(ValueError):
    """Valid record that PostgreSQL cannot store; the message is stored with the rejected item."""


def is_suspect(data: bytes) -> bool:
    """Return whether JSON *data* may be unstorable: a hint, as a full check costs too much."""
    if SUSPECT_JSON.search(data):
        return True
    return (
        len(data) > MAX_INTEGER_DIGITS
        and LONG_INTEGER_PROBES.search(data[::PROBE_BYTES]) is not None
        and LONG_INTEGER.search(data) is not None
    )


def require_storable(value: Any, place: str = "") -> None:
    """Raise NotStorable if *value* contains anything that jsonb cannot store."""
    if isinstance(value, str) and "\0" in value:
        raise NotStorable(f"{place or 'text'}: U+0000, which PostgreSQL cannot store")
    if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise NotStorable(f"{place or 'text'}: a lone surrogate, which is not a valid character")
    if isinstance(value, int) and abs(value) >= 10**MAX_INTEGER_DIGITS:
        raise NotStorable(
            f"{place or 'number'}: an integer of more than {MAX_INTEGER_DIGITS} digits"
        )
    if isinstance(value, Decimal) and not value.is_finite():
        raise NotStorable(f"{place or 'number'}: {value}, which JSON cannot hold")
    if isinstance(value, Decimal) and int(value.as_tuple().exponent) < -MAX_NUMERIC_SCALE:
        raise NotStorable(f"{place}: more than {MAX_NUMERIC_SCALE} decimal places")
    if isinstance(value, float) and not math.isfinite(value):
        raise NotStorable(f"{place or 'number'}: {value}, which JSON cannot hold")
    if isinstance(value, Mapping):
        for name, part in value.items():
            require_storable(name, place)
            require_storable(part, f"{place}.{name}".lstrip("."))
    elif isinstance(value, list | tuple | set | frozenset):
        for part in value:
            require_storable(part, place)
