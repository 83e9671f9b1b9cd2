"""Query parameters of resources, derived from the SQL types of their columns."""

import datetime as dt
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal, TypeVar
from uuid import UUID

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NaiveDatetime,
    ValidationError,
    WithJsonSchema,
    create_model,
)

from catlog_scrapy.api.former_names import former_name_error
from catlog_scrapy.store.reading.page_query import NULL_OPERATOR, OPERATORS

M = TypeVar("M", bound=BaseModel)

# Filters a column whose name another parameter has.
EQUAL_OPERATOR = "eq"
MAX_OFFSET = 2**31 - 1
MAX_FILTER_VALUES = 100
MAX_TEXT_CHARS = 1000
# A cursor contains the key of a record and the values of the order columns.
MAX_CURSOR_CHARS = 50_000
UNSTORABLE = re.compile("[\0\ud800-\udfff]")
UTC_OFFSET = re.compile(r" (\d\d:?\d\d)$")
DATE = re.compile(r"\d{4}-\d\d-\d\d")


def _storable(value: str) -> str:
    if UNSTORABLE.search(value):
        raise ValueError("contains U+0000 or a lone surrogate, which the database cannot store")
    return value


def _require_rfc3339(time: Any) -> Any:
    # pydantic would read a number as seconds since 1970.
    if not DATE.match(str(time)):
        raise ValueError("should be written as in RFC 3339, such as 2026-11-01T00:00Z")
    # An unescaped plus sign of a URL arrives as a blank.
    return UTC_OFFSET.sub(r"+\1", time) if isinstance(time, str) else time


def _require_date(day: Any) -> Any:
    if not DATE.fullmatch(str(day)):
        raise ValueError("should be a day, such as 2026-11-01")
    return day


Text = Annotated[
    str,
    AfterValidator(_storable),
    Field(max_length=MAX_TEXT_CHARS, json_schema_extra={"pattern": "^[^\\u0000]*$"}),
]
Number = Annotated[
    Decimal,
    Field(allow_inf_nan=False, max_digits=100, decimal_places=50),
    WithJsonSchema({"type": "number"}),
]
Real = Annotated[float, Field(allow_inf_nan=False)]
Instant = Annotated[AwareDatetime, BeforeValidator(_require_rfc3339)]


def _integer(bits: int) -> Any:
    return Annotated[int, Field(ge=-(2 ** (bits - 1)), le=2 ** (bits - 1) - 1)]


# SQL type -> the type of a value in a URL, and the JSON schema of a value in a row. Columns of
# other types are shown, but cannot be filtered or ordered by.
COLUMN_TYPES: dict[str, tuple[Any, dict[str, Any]]] = {
    "text": (Text, {"type": "string", "examples": ["a word"]}),
    "character varying": (Text, {"type": "string", "examples": ["a word"]}),
    "smallint": (_integer(16), {"type": "integer", "examples": [42]}),
    "integer": (_integer(32), {"type": "integer", "examples": [42]}),
    "bigint": (_integer(64), {"type": "integer", "examples": [42]}),
    "numeric": (Number, {"type": "number", "examples": [12.5]}),
    "real": (Real, {"type": "number", "examples": [12.5]}),
    "double precision": (Real, {"type": "number", "examples": [12.5]}),
    "boolean": (bool, {"type": "boolean", "examples": [True]}),
    "date": (
        Annotated[dt.date, BeforeValidator(_require_date)],
        {"type": "string", "format": "date", "examples": ["2026-11-01"]},
    ),
    "timestamp with time zone": (
        Instant,
        {"type": "string", "format": "date-time", "examples": ["2026-11-01T03:00:02.5+00:00"]},
    ),
    "timestamp without time zone": (
        Annotated[NaiveDatetime, BeforeValidator(_require_rfc3339)],
        {"type": "string", "examples": ["2026-11-01T03:00:02.5"]},
    ),
    "uuid": (
        UUID,
        {
            "type": "string",
            "format": "uuid",
            "examples": ["7d9c1a52-0f0c-4a52-9a1e-0a8de6e4c1f0"],
        },
    ),
}
AS_OF = "Time to show the rows as of: the rows that were current then."
# Types without range filters.
TYPES_WITHOUT_RANGE = {"text", "character varying", "boolean", "uuid"}


class Parameters(BaseModel):
    """Parameters that every list has. Unknown parameters are errors."""

    model_config = ConfigDict(extra="forbid")
    # Parameters that may be repeated.
    repeatable: ClassVar[frozenset[str]] = frozenset()

    limit: int = Field(100, ge=1, description="Number of rows of a page.")
    offset: int = Field(0, ge=0, le=MAX_OFFSET, description="Number of rows to skip.")
    cursor: Annotated[str, AfterValidator(_storable)] | None = Field(
        None,
        max_length=MAX_CURSOR_CHARS,
        description="Cursor of a page, as `next` and `previous` contain it; empty for the first"
        " page. Pages by cursor have no `count`; their cost does not grow with depth.",
    )
    order: Text | None = Field(
        None, description="Columns to order by, separated by commas; `-` reverses a column."
    )
    fields: Text | None = Field(None, description="Columns to show, separated by commas.")


def list_parameters(
    name: str,
    columns: Mapping[str, str],
    *,
    max_rows: int,
    search: Sequence[str] = (),
    is_declared: bool = False,
    has_as_of_view: bool = False,
) -> type[Parameters]:
    """Return the query parameters of a list with these *columns* (SQL types by name).

    A declared resource can be streamed; a resource with an as-of view can be read as of a time.
    `requested_filters` reads the filters.
    """
    own: dict[str, Any] = {
        "limit": (
            int,
            Field(min(100, max_rows), ge=1, le=max_rows, description="Number of rows of a page."),
        ),
    }
    if search:
        description = f"Text to find in {', '.join(search)}, in upper or lower case."
        own["search"] = (Text | None, Field(None, description=description))
    if has_as_of_view:
        own["as_of"] = (
            Instant | None,
            Field(None, description=AS_OF, examples=["2026-11-01T00:00Z"]),
        )
    if is_declared:
        own["format"] = (
            Literal["json", "ndjson", "csv"] | None,
            Field(
                None,
                description="Format; `ndjson` and `csv` stream all rows. The default is the"
                " preferred media type of `Accept`.",
            ),
        )
    repeatable = set()
    for alias, (internal, annotation, description) in _filters(columns, own).items():
        own[internal] = (annotation, Field(None, alias=alias, description=description))
        if internal.startswith("equal_"):
            repeatable.add(alias)
    model = create_model(name, __base__=Parameters, **own)
    model.repeatable = frozenset(repeatable)
    return model


def read_query(request: Request, model: type[M], resource: str) -> M:
    """Parse the query of *request*. Raises RequestValidationError."""
    repeatable: frozenset[str] = getattr(model, "repeatable", frozenset())
    given: dict[str, Any] = {}
    for name, value in request.query_params.multi_items():
        if name in repeatable:
            given.setdefault(name, []).append(value)
        else:
            given[name] = value
    return validate("query", model, given, resource)


def validate(place: str, model: type[M], given: Mapping[str, Any], resource: str) -> M:
    """Validate *given* values. Raises RequestValidationError, which names *place*."""
    try:
        return model.model_validate(given)
    except ValidationError as error:
        errors = []
        for part in error.errors(include_url=False, include_input=False):
            message = part["msg"]
            if part["type"] == "extra_forbidden":
                name = str(part["loc"][0])
                message = former_name_error(resource, name) or "is not a parameter of this path"
            errors.append({**part, "msg": message, "loc": (place, *part["loc"])})
        raise RequestValidationError(errors) from error


def _filters(
    columns: Mapping[str, str], parameters: Iterable[str]
) -> dict[str, tuple[str, Any, str]]:
    """Return the filters by their names in a URL: field of the model, type and description.

    A column that has the name of another parameter, such as `limit`, is filtered by `limit__eq`.
    """
    found: dict[str, tuple[str, Any, str]] = {}
    taken = {*Parameters.model_fields, *parameters}
    operators = (*OPERATORS, NULL_OPERATOR, EQUAL_OPERATOR)
    taken |= {f"{column}__{operator}" for column in columns for operator in operators}
    for n, (column, sql_type) in enumerate(columns.items()):
        if sql_type not in COLUMN_TYPES:
            continue
        type_ = COLUMN_TYPES[sql_type][0]
        found[f"{column}__{EQUAL_OPERATOR}" if column in taken else column] = (
            f"equal_{n}",
            Annotated[list[type_] | None, Field(max_length=MAX_FILTER_VALUES)],  # type: ignore[valid-type]
            f"Rows whose `{column}` is this value, or one of these values if repeated.",
        )
        found[f"{column}__{NULL_OPERATOR}"] = (
            f"{NULL_OPERATOR}_{n}",
            bool | None,
            f"Rows whose `{column}` is null, or is not null.",
        )
        if sql_type not in TYPES_WITHOUT_RANGE:
            for operator, sign in OPERATORS.items():
                found[f"{column}__{operator}"] = (
                    f"{operator}_{n}",
                    type_ | None,
                    f"Rows with `{column}` {sign} this value.",
                )
    return found


def requested_filters(
    parameters: Parameters, columns: Iterable[str]
) -> tuple[dict[str, list[Any]], list[tuple[str, str, Any]]]:
    """Return the requested filters: allowed values by column, and bounds."""
    equal: dict[str, list[Any]] = {}
    bounds: list[tuple[str, str, Any]] = []
    given = {name: getattr(parameters, name) for name in parameters.model_fields_set}
    for n, column in enumerate(columns):
        values = given.get(f"equal_{n}")
        if values is not None:
            equal[column] = [str(v) if isinstance(v, UUID) else v for v in values]
        for operator in (*OPERATORS, NULL_OPERATOR):
            bound = given.get(f"{operator}_{n}")
            if bound is not None:
                bounds.append((column, operator, bound))
    return equal, bounds


def row_schema(columns: Mapping[str, str], fields: Sequence[str]) -> dict[str, Any]:
    """Return the JSON schema of a row; no field is required, because `fields` may omit each."""
    properties: dict[str, Any] = {}
    for name in fields:
        known = COLUMN_TYPES.get(columns[name])
        if known is None:
            properties[name] = {}
        else:
            schema = dict(known[1])
            properties[name] = {**schema, "type": [schema["type"], "null"]}
    return {"type": "object", "properties": properties, "additionalProperties": False}
