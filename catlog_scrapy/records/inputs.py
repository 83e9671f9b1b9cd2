"""Inputs that pydantic would turn into another value than their source means; all are refused.

Among them are digits as a date, true as the number 1, "1_000" as 1000, and NaN as text.
"""

import datetime as dt
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
MICROSECONDS = {"seconds": 1_000_000, "milliseconds": 1_000}
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def require_number(value: Any) -> Any:
    """Refuse booleans and digits with underscores as numbers."""
    kind = type(value)
    if kind is int or kind is float or kind is Decimal:
        return value
    if isinstance(value, bool):
        raise PydanticCustomError(
            "boolean_as_number", "a boolean is not a valid number; yield a number or None"
        )
    if (kind is str and "_" in value) or (isinstance(value, bytes) and b"_" in value):
        raise PydanticCustomError(
            "underscore_in_number", "a number with underscores is not valid; yield digits only"
        )
    return value


def require_date(value: Any) -> Any:
    """Refuse numbers as dates and times, and write offsets of seconds as UTC."""
    if isinstance(value, dt.datetime):
        return _in_minutes(value)
    if _is_number(value):
        raise PydanticCustomError(
            "number_as_date",
            "a number is not a valid date or time; yield ISO 8601 text, or declare the field as a"
            " Unix time",
        )
    return value


def _in_minutes(value: dt.datetime) -> dt.datetime:
    """Return *value* in UTC if its offset has seconds, which JSON leaves out."""
    offset = value.utcoffset()
    if not offset or offset.seconds % 60 == 0:
        return value
    try:
        return value.astimezone(dt.UTC)
    except OverflowError:  # the bounds refuse the value
        return value


def require_duration(value: Any) -> Any:
    """Refuse booleans as numbers of seconds."""
    return require_number(value) if isinstance(value, bool) else value


def require_text_number(value: Any) -> Any:
    """Refuse NaN and infinite numbers as text, for fields that take numbers as text."""
    is_finite = value.is_finite() if isinstance(value, Decimal) else True
    if not is_finite or (isinstance(value, float) and not math.isfinite(value)):
        raise PydanticCustomError(
            "finite_number", "NaN and infinite numbers are not valid text; yield None"
        )
    return value


def empty_as_null(value: Any) -> Any:
    """Return None for blank text."""
    return None if isinstance(value, str) and not value.strip() else value


def _is_number(value: Any) -> bool:
    if isinstance(value, int | float | Decimal):
        return True
    if isinstance(value, bytes | bytearray):
        value = value.decode("latin-1")
    return isinstance(value, str) and NUMBER.fullmatch(value) is not None


@dataclass(frozen=True, slots=True)
class UnixTime:
    """Marker of a datetime field that gets Unix times: numbers of `unit` since 1970.

    Annotate `sold_at: Annotated[datetime, UnixTime()]` for seconds, and
    `sold_at: Annotated[datetime, UnixTime("milliseconds")]`. Without the marker a number is not a
    valid date or time.
    """

    unit: Literal["seconds", "milliseconds"] = "seconds"

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Return the schema of a datetime that is read from a number."""
        return core_schema.no_info_before_validator_function(self.read, handler(source))

    def read(self, value: Any) -> Any:
        """Return the datetime of a Unix time, given as a number or as digits.

        None and datetimes are left to the datetime's own schema.
        """
        if value is None or isinstance(value, dt.datetime):
            return value
        if isinstance(value, bool) or not _is_number(value):
            raise PydanticCustomError(
                "unix_time", "the value is not a valid Unix time; yield a number"
            )
        text = value.decode() if isinstance(value, bytes | bytearray) else str(value)
        try:
            return EPOCH + dt.timedelta(microseconds=round(Decimal(text) * MICROSECONDS[self.unit]))
        except (ArithmeticError, ValueError):
            raise PydanticCustomError(
                "unix_time", "the Unix time is out of range; the years 1 to 9999 are valid"
            ) from None


def require_distinct_members(value: Any, validate: Callable[[Any], Any]) -> Any:
    """Refuse an object of which two names, such as 1 and "1", are valid as one name."""
    valid = validate(value)
    if isinstance(value, Mapping) and len(valid) < len(value):
        raise PydanticCustomError(
            "members_with_one_name",
            "several members of the object have one name, such as 1 and '1'; yield one of them",
        )
    return valid
