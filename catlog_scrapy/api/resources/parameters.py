"""What may be asked of a resource in a URL, as the types of its columns allow."""

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal
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

from catlog_scrapy.store.reading.pages import NULL_OPERATOR, OPERATORS

MOST_OFFSET = 2**31 - 1
MOST_VALUES = 100
MOST_TEXT = 1000
# Letters of a cursor, which holds the key of a record and the values that it is ordered by.
MOST_CURSOR = 50_000
NOT_STORABLE = re.compile("[\0\ud800-\udfff]")
OFFSET = re.compile(r" (\d\d:?\d\d)$")
DAY = re.compile(r"\d{4}-\d\d-\d\d")


def _storable(value: str) -> str:
    if NOT_STORABLE.search(value):
        raise ValueError("holds U+0000 or a lone surrogate, which no text in the database has")
    return value


def _is_written(time: Any) -> Any:
    # Else a number would be taken for seconds since 1970.
    if not DAY.match(str(time)):
        raise ValueError("should be written as in RFC 3339, such as 2026-11-01T00:00Z")
    # A plus sign in a URL is a blank.
    return OFFSET.sub(r"+\1", time) if isinstance(time, str) else time


def _is_day(day: Any) -> Any:
    if not DAY.fullmatch(str(day)):
        raise ValueError("should be a day, such as 2026-11-01")
    return day


Text = Annotated[
    str,
    AfterValidator(_storable),
    Field(max_length=MOST_TEXT, json_schema_extra={"pattern": "^[^\\u0000]*$"}),
]
Number = Annotated[
    Decimal,
    Field(allow_inf_nan=False, max_digits=100, decimal_places=50),
    WithJsonSchema({"type": "number"}),
]
Real = Annotated[float, Field(allow_inf_nan=False)]
Instant = Annotated[AwareDatetime, BeforeValidator(_is_written)]


def _integer(bits: int) -> Any:
    return Annotated[int, Field(ge=-(2 ** (bits - 1)), le=2 ** (bits - 1) - 1)]


# A column's SQL type: how a value of it is written in a URL, and what JSON has for it. Columns of
# other types are shown, but neither filtered nor ordered by.
TYPES: dict[str, tuple[Any, dict[str, Any]]] = {
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
        Annotated[dt.date, BeforeValidator(_is_day)],
        {"type": "string", "format": "date", "examples": ["2026-11-01"]},
    ),
    "timestamp with time zone": (
        Instant,
        {"type": "string", "format": "date-time", "examples": ["2026-11-01T03:00:02.5+00:00"]},
    ),
    "timestamp without time zone": (
        Annotated[NaiveDatetime, BeforeValidator(_is_written)],
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
AS_OF = "show what was current then"
# Types whose values nobody asks to be below another one.
UNBOUNDED = {"text", "character varying", "boolean", "uuid"}


class Parameters(BaseModel):
    """What every listing can be asked. A parameter that nobody knows is a mistake."""

    model_config = ConfigDict(extra="forbid")
    # The parameters that may have several values.
    repeatable: ClassVar[frozenset[str]] = frozenset()

    limit: int = Field(100, ge=1, description="how many rows a page has")
    offset: int = Field(0, ge=0, le=MOST_OFFSET, description="how many rows to pass over")
    cursor: Annotated[str, AfterValidator(_storable)] | None = Field(
        None,
        max_length=MOST_CURSOR,
        description="where a page begins, as `next` and `previous` have it; empty for the first."
        " Such pages have no `count`, and cost the same at any depth.",
    )
    order: Text | None = Field(
        None,
        description="columns to order by, with commas between them, `-` before one that descends",
    )
    fields: Text | None = Field(None, description="the columns to show, with commas between them")


def parameters(
    name: str,
    columns: Mapping[str, str],
    *,
    most: int,
    search: Sequence[str] = (),
    is_declared: bool = False,
    has_as_of_view: bool = False,
) -> type[Parameters]:
    """The query parameters of the resource *name* with these *columns* (SQL types by name).

    *most* is how many rows a page may have. A declared resource can be streamed, and asked for its
    past where it has one. The filters are fields by the names of `filters_of`.
    """
    own: dict[str, Any] = {
        "limit": (
            int,
            Field(min(100, most), ge=1, le=most, description="how many rows a page has"),
        ),
    }
    if search:
        own["search"] = (Text | None, Field(None, description=f"a text in {', '.join(search)}"))
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
                description="`ndjson` and `csv` stream all rows; so do the media types of `Accept`",
            ),
        )
    taken = {*Parameters.model_fields, *own}
    for alias, (internal, annotation) in _filters(columns).items():
        if alias not in taken:
            own[internal] = (annotation, Field(None, alias=alias))
    model = create_model(name, __base__=Parameters, **own)
    model.repeatable = frozenset(columns) - taken
    return model


def query_of(request: Request, model: type[Parameters]) -> Parameters:
    """What the URL of *request* asks for. Raises RequestValidationError."""
    given: dict[str, Any] = {}
    for name, value in request.query_params.multi_items():
        if name in model.repeatable:
            given.setdefault(name, []).append(value)
        else:
            given[name] = value
    try:
        return model.model_validate(given)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False)
        raise RequestValidationError(
            [{**part, "loc": ("query", *part["loc"])} for part in wrong]
        ) from error


def _filters(columns: Mapping[str, str]) -> dict[str, tuple[str, Any]]:
    """The filters by the names they have in a URL: the model's field, and its type."""
    found: dict[str, tuple[str, Any]] = {}
    for n, (column, sql_type) in enumerate(columns.items()):
        if sql_type not in TYPES:
            continue
        type_ = TYPES[sql_type][0]
        found[column] = (
            f"equal_{n}",
            Annotated[list[type_] | None, Field(max_length=MOST_VALUES)],  # type: ignore[valid-type]
        )
        found[f"{column}__{NULL_OPERATOR}"] = (f"{NULL_OPERATOR}_{n}", bool | None)
        if sql_type not in UNBOUNDED:
            for operator in OPERATORS:
                found[f"{column}__{operator}"] = (f"{operator}_{n}", type_ | None)
    return found


def filters_of(
    asked: Parameters, columns: Mapping[str, str]
) -> tuple[dict[str, list[Any]], list[tuple[str, str, Any]]]:
    """The filters that were asked for: values by column, and bounds."""
    equal: dict[str, list[Any]] = {}
    bounds: list[tuple[str, str, Any]] = []
    given = {name: getattr(asked, name) for name in asked.model_fields_set}
    for n, column in enumerate(columns):
        values = given.get(f"equal_{n}")
        if values is not None:
            equal[column] = [str(v) if isinstance(v, UUID) else v for v in values]
        for operator in (*OPERATORS, NULL_OPERATOR):
            bound = given.get(f"{operator}_{n}")
            if bound is not None:
                bounds.append((column, operator, bound))
    return equal, bounds


def schema_of(columns: Mapping[str, str], fields: Sequence[str]) -> dict[str, Any]:
    """JSON Schema of a row with these *fields*; which may be left out by `?fields=`."""
    properties: dict[str, Any] = {}
    for name in fields:
        known = TYPES.get(columns[name])
        if known is None:
            properties[name] = {}
        else:
            schema = dict(known[1])
            properties[name] = {**schema, "type": [schema["type"], "null"]}
    return {"type": "object", "properties": properties, "additionalProperties": False}
