"""The base of all record types, and the shapes in which a spider yields records."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from functools import cache
from typing import Annotated, Any, ClassVar

import orjson
from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, TypeAdapter, create_model
from pydantic_core import CoreSchema

from catlog_scrapy.records.media import FilesOf, ImagesOf

BIGINT = 2**63 - 1
# PostgreSQL's numeric: 131072 digits before the point, 16383 after it (its manual, part 8.1.2).
NUMERIC = Decimal("1E+131071")
NUMERIC_SCALE = 16383
# PostgreSQL cuts longer identifiers (NAMEDATALEN - 1).
MAX_NAME_BYTES = 63
MAX_KEY_BYTES = 1000

# What JSON can carry and jsonb cannot, and the U+FFFD that stands for a lone surrogate in the name
# of a dict's member. The search is cheap; what it finds may still be innocent.
SUSPECT = re.compile(rb"\\u0000|NaN|Infinity|\xef\xbf\xbd|E-\d{5}|\d{1001}")

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
# The words a declaration may use for a field's type, besides the SQL names themselves.
FIELD_TYPES: dict[str, Any] = {
    "text": str,
    "bigint": int,
    "double precision": float,
    "numeric": Decimal,
    "boolean": bool,
    "jsonb": Any,
}
NAME = re.compile(r"[a-z][a-z0-9_]*")


class RecordTypeError(TypeError):
    """A record type whose key, view or fields cannot become a table. Raised when it is defined."""


class NotStorable(ValueError):
    """A valid record that PostgreSQL cannot hold. Its text is the reason kept with the item."""


def _bound(schema: Any) -> None:
    """Narrow every number and instant in *schema* to what its SQL type holds."""
    if isinstance(schema, list | tuple):
        for part in schema:
            _bound(part)
    if not isinstance(schema, dict):
        return
    match schema.get("type"):
        case "int":
            schema["ge"] = max(schema.get("ge", -BIGINT - 1), -BIGINT - 1)
            schema["le"] = min(schema.get("le", BIGINT), BIGINT)
        case "float":
            schema["allow_inf_nan"] = False
        case "decimal":
            schema["ge"] = max(schema.get("ge", -NUMERIC), -NUMERIC)
            schema["le"] = min(schema.get("le", NUMERIC), NUMERIC)
            schema.setdefault("decimal_places", NUMERIC_SCALE)
        case "datetime":
            schema.setdefault("tz_constraint", "aware")
    for name, part in schema.items():
        if name not in ("metadata", "default", "serialization"):
            _bound(part)


def _field_schemas(schema: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The core schemas of a model's fields by name, and those that they share by reference."""
    shared: dict[str, Any] = {}
    while schema["type"] != "model-fields":
        shared |= {part["ref"]: part for part in schema.get("definitions", ())}
        schema = _inner(schema, shared)
    return {name: field["schema"] for name, field in schema["fields"].items()}, shared


def _inner(schema: Any, shared: Mapping[str, Any]) -> Any:
    return shared[schema["schema_ref"]] if "schema_ref" in schema else schema["schema"]


def _sql_type(schema: Any, shared: Mapping[str, Any]) -> str:
    """The SQL type of a core schema; jsonb for what has no type of its own."""
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


def _loose_float(schema: Any) -> bool:
    """Whether *schema* lets a NaN through: a plain model inside a record is not bounded."""
    if isinstance(schema, list | tuple):
        return any(_loose_float(part) for part in schema)
    if not isinstance(schema, dict):
        return False
    if schema.get("type") == "float" and schema.get("allow_inf_nan", True):
        return True
    return any(
        _loose_float(part)
        for name, part in schema.items()
        if name not in ("metadata", "default", "serialization")
    )


def _refuse_unstorable(value: Any, place: str = "") -> None:
    """Raise NotStorable where *value* really holds what jsonb cannot."""
    if isinstance(value, str) and "\0" in value:
        raise NotStorable(f"{place or 'text'}: U+0000, which PostgreSQL cannot store")
    if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise NotStorable(f"{place or 'text'}: a lone surrogate, which is no character")
    if isinstance(value, int) and abs(value) >= 10**1000:
        raise NotStorable(f"{place or 'number'}: an integer of more than 1000 digits")
    if isinstance(value, Decimal) and int(value.as_tuple().exponent) < -NUMERIC_SCALE:
        raise NotStorable(f"{place}: more than {NUMERIC_SCALE} decimal places")
    if isinstance(value, float) and not math.isfinite(value):
        raise NotStorable(f"{place or 'number'}: {value}, which JSON cannot hold")
    if isinstance(value, Mapping):
        for name, part in value.items():
            _refuse_unstorable(name, place)
            _refuse_unstorable(part, f"{place}.{name}".lstrip("."))
    elif isinstance(value, list | tuple | set | frozenset):
        for part in value:
            _refuse_unstorable(part, place)


class Record(BaseModel):
    """One thing of a catalog: `class Product(Record, key=("vendor", "sku"), view="products")`.

    `key` names the field or fields that identify it. `view` names its view in SQL, which is also
    its kind. Every field is bounded by its SQL type: integers to 64 bits, no NaN, no infinities,
    instants with a time zone. An unknown field is a mistake.
    """

    model_config = ConfigDict(
        extra="forbid",
        validate_default=True,
        ser_json_inf_nan="constants",
        ser_json_timedelta="float",
    )

    key_fields: ClassVar[tuple[str, ...]]
    kind: ClassVar[str]

    def __init_subclass__(
        cls, key: str | Sequence[str] = (), view: str = "", **kwargs: Any
    ) -> None:
        """*key* and *view* are inherited by a subclass that does not say its own."""
        super().__init_subclass__(**kwargs)
        if key:
            cls.key_fields = (key,) if isinstance(key, str) else tuple(key)
        if view:
            cls.kind = view

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        own = {*vars(Record), *Record.__annotations__}
        taken = [name for name in cls.model_fields if name in own]
        if taken:
            raise RecordTypeError(
                f"{cls.__name__}: {taken[0]!r} is a name of every record type; rename the field."
            )
        if not getattr(cls, "kind", "") or not getattr(cls, "key_fields", ()):
            raise RecordTypeError(
                f"{cls.__name__} needs a key and a view:"
                f' class {cls.__name__}(Record, key="id", view="things").'
            )
        unknown = [name for name in cls.key_fields if name not in cls.model_fields]
        if unknown:
            raise RecordTypeError(f"{cls.__name__} has no field {unknown[0]!r} for its key.")
        for urls in (*cls.media_fields(ImagesOf).values(), *cls.media_fields(FilesOf).values()):
            if urls not in cls.model_fields:
                raise RecordTypeError(f"{cls.__name__} has no field {urls!r} for its media.")
        if _loose_float(cls.__pydantic_core_schema__):
            raise RecordTypeError(
                f"{cls.__name__}: a float in a model inside of it may be NaN, which JSON cannot"
                " hold; write pydantic.FiniteFloat there."
            )
        for name in (cls.kind, *cls.model_fields):
            if not NAME.fullmatch(name) or len(name) > MAX_NAME_BYTES:
                raise RecordTypeError(
                    f"{cls.__name__}: {name!r} is no plain SQL name;"
                    " use lower-case letters, digits and underscores, 63 at most."
                )

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        _bound(schema)
        return schema

    @classmethod
    def draft(cls, /, **values: Any) -> "Draft":
        """An unvalidated item of this type: built in a callback, it cannot raise there."""
        return Draft(cls, values)

    @classmethod
    def sql_fields(cls) -> list[dict[str, str]]:
        """Its fields in order, as `{"name", "type"}`, the type as PostgreSQL names it."""
        schemas, shared = _field_schemas(cls.__pydantic_core_schema__)
        return [
            {"name": name, "type": _sql_type(schemas[name], shared)} for name in cls.model_fields
        ]

    @classmethod
    def media_fields(cls, marker: type[ImagesOf] | type[FilesOf]) -> dict[str, str]:
        """The fields that get links, each with the field that has the URLs."""
        return {
            name: mark.urls
            for name, field in cls.model_fields.items()
            for mark in field.metadata
            if isinstance(mark, marker)
        }

    @classmethod
    def key_of(cls, values: Sequence[Any]) -> str:
        """The text that identifies a record with these key *values*, in the order of the key.

        One value is its own text; several are a JSON array. Raises NotStorable where one is
        missing, or the text is longer than 1000 bytes.
        """
        if len(values) != len(cls.key_fields):
            raise NotStorable(f"the key needs {len(cls.key_fields)} values: {cls.key_fields}")
        only = values[0] if len(values) == 1 else None
        if None in values or only == "":
            missing = next(
                n for n, v in zip(cls.key_fields, values, strict=True) if v is None or only == ""
            )
            raise NotStorable(f"{missing}: the key is missing")
        if isinstance(only, Enum):
            only = only.value
        try:
            text = str(only) if len(values) == 1 else orjson.dumps(values, default=str).decode()
            size = len(text if text.isascii() else text.encode())
        except UnicodeEncodeError as error:
            raise NotStorable("the key has a lone surrogate") from error
        except orjson.JSONEncodeError as error:
            raise NotStorable(f"the key is not to be written as JSON: {error}") from error
        if size > MAX_KEY_BYTES:
            raise NotStorable(f"the key is {size} bytes long; {MAX_KEY_BYTES} is the limit")
        if "\0" in text:
            raise NotStorable("the key has U+0000, which PostgreSQL cannot store")
        return text

    @classmethod
    def key_from(cls, values: Sequence[Any]) -> str:
        """The same of raw *values*, read as their fields' types: "1973" as the year 1973.

        Raises NotStorable, or pydantic's ValidationError.
        """
        adapters = _key_adapters(cls)
        if len(values) == len(adapters):
            values = [
                adapter.validate_python(value)
                for adapter, value in zip(adapters, values, strict=True)
            ]
        return cls.key_of(values)

    def row(self) -> tuple[str, bytes]:
        """Its key and its data as JSON, both as PostgreSQL will take them; else NotStorable."""
        values = self.__dict__
        key = self.key_of([values[name] for name in self.key_fields])
        try:
            data = self.__pydantic_serializer__.to_json(self)
        except ValueError as error:
            reason = str(error).removeprefix("Error serializing to JSON: ")
            raise NotStorable(f"not to be written as JSON: {reason}") from error
        if SUSPECT.search(data):
            # As it will be sent: bytes and paths, too, are text there. Then as it was given.
            _refuse_unstorable(json.loads(data, parse_int=str))
            _refuse_unstorable(self.model_dump())
        return key, data


@cache
def _key_adapters(record: type[Record]) -> list[TypeAdapter[Any]]:
    fields = [record.model_fields[name] for name in record.key_fields]
    types: list[Any] = [Annotated[field.annotation, field] for field in fields]
    return [TypeAdapter(type_) for type_ in types]


class Draft(dict[str, Any]):
    """A plain dict that remembers which record type it is meant for."""

    def __init__(self, record: type[Record], values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.record = record


@dataclass(frozen=True, slots=True)
class Batch:
    """Many records as one item, such as a JSON page of ten thousand. It counts by its length.

    `items` are dicts (or Drafts); `record` is needed only where the spider yields several types.
    """

    items: Sequence[Mapping[str, Any]]
    record: type[Record] | None = None

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True, slots=True)
class Unchanged:
    """A known record that the spider has seen but not read again: it is kept, not removed.

    `key` is the value of a single-field key, or the values in the order of the key.
    """

    key: Any
    record: type[Record] | None = None

    def values(self) -> Sequence[Any]:
        """The key's values, in the order of the key."""
        return list(self.key) if isinstance(self.key, (list, tuple)) else [self.key]


@dataclass(frozen=True, slots=True)
class Removed(Unchanged):
    """A record that is gone, as its source says: it is removed, whatever else the load brings.

    `key` as for `Unchanged`. A key that is no record is passed over.
    """


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far an incremental operation has read. Its next load gets `value` as `cursor`.

    It is published together with the data of its load, and only with it. The last one of a crawl
    counts. Where a source has nothing new, its cursor is an answer too.
    """

    value: str


def record_type(
    kind: str, key: Sequence[str], fields: Mapping[str, str] | None = None
) -> type[Record]:
    """The record type of a spider that has none: *kind* and *key* as its operation declares them.

    *fields* maps names to SQL types (see FIELD_TYPES); a key field without one is text. What else
    an item holds is kept in its data. Raises RecordTypeError.
    """
    types = {**dict.fromkeys(key, "text"), **(fields or {})}
    for name, sql_type in types.items():
        if sql_type not in FIELD_TYPES:
            raise RecordTypeError(
                f"{name} has the type {sql_type!r}; use one of {', '.join(FIELD_TYPES)}."
            )
    definitions: dict[str, Any] = {
        name: (
            (FIELD_TYPES[sql_type], ...)
            if name in key
            else (FIELD_TYPES[sql_type] | None if sql_type != "jsonb" else Any, None)
        )
        for name, sql_type in types.items()
    }
    return create_model(
        "".join(word.capitalize() for word in kind.split("_")),
        __base__=Record,
        __cls_kwargs__={
            "key": tuple(key),
            "view": kind,
            "extra": "allow",
            "coerce_numbers_to_str": True,
        },
        **definitions,
    )


def is_record_type(value: object) -> bool:
    """Whether a spider may name *value* as its `record`."""
    return isinstance(value, type) and issubclass(value, Record)


def record_types(spider: Any) -> tuple[type[Record], ...]:
    """The record types that *spider* (a class or an object) says it yields: its `record`."""
    said = getattr(spider, "record", None)
    if said is None:
        return ()
    return tuple(said) if isinstance(said, Iterable) else (said,)


__all__ = [
    "Batch",
    "Cursor",
    "Draft",
    "NotStorable",
    "Record",
    "RecordTypeError",
    "Removed",
    "Unchanged",
    "is_record_type",
    "record_type",
    "record_types",
]
