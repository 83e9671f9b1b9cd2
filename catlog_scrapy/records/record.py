"""Base class of all record types."""

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from enum import Enum
from functools import cache
from typing import Annotated, Any, ClassVar

import orjson
from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, TypeAdapter
from pydantic_core import CoreSchema, to_json

from catlog_scrapy.plurals import counted
from catlog_scrapy.records.media import FilesOf, ImagesOf
from catlog_scrapy.records.sql_types import (
    MAX_NAME_BYTES,
    allows_nan,
    bound_schema,
    field_schemas,
    sql_type_of,
)
from catlog_scrapy.records.storable import NotStorable, is_suspect, require_storable
from catlog_scrapy.records.unordered import has_nested_sets, holds_any, sort_sets

MAX_KEY_BYTES = 1000
SQL_NAME = re.compile(r"[a-z][a-z0-9_]*")


# Columns that the views add, by which readers select and sort, too.
TIME_COLUMNS = ("created_at", "updated_at")
# Fields, and lists of fields.
FieldLists = str | Sequence[str | Sequence[str]]


class RecordTypeError(TypeError):
    """Record type whose key, view or fields cannot become a table; raised at its definition."""


class Record(BaseModel):
    """Item type of a catalog: `class Product(Record, key=("vendor", "sku"), view="products")`.

    `key` names the field or fields that identify a record. `view` names the SQL view of the
    records, and is also their kind. `index` names fields by which readers select or sort, such as
    `("price", ("vendor", "created_at"))`; `unique` names fields whose values no two records of a
    provider may share. Every field is bounded by its SQL type: integers have at most 64 bits,
    floats are finite, datetimes have a time zone. An unknown field does not validate.
    """

    model_config = ConfigDict(
        extra="forbid",
        validate_default=True,
        ser_json_inf_nan="constants",
        ser_json_timedelta="float",
    )

    key_fields: ClassVar[tuple[str, ...]]
    kind: ClassVar[str]
    any_fields: ClassVar[tuple[str, ...]] = ()
    has_nested_sets: ClassVar[bool] = False
    index_fields: ClassVar[tuple[tuple[str, ...], ...]] = ()
    unique_fields: ClassVar[tuple[tuple[str, ...], ...]] = ()

    def __init_subclass__(
        cls,
        key: str | Sequence[str] = (),
        view: str = "",
        index: FieldLists = (),
        unique: FieldLists = (),
        **kwargs: Any,
    ) -> None:
        """Set *key*, *view*, *index* and *unique*; a subclass without its own inherits them."""
        super().__init_subclass__(**kwargs)
        if key:
            cls.key_fields = (key,) if isinstance(key, str) else tuple(key)
        if view:
            cls.kind = view
        if index:
            cls.index_fields = field_lists(index)
        if unique:
            cls.unique_fields = field_lists(unique)

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        own = {*vars(Record), *Record.__annotations__}
        taken = [name for name in cls.model_fields if name in own]
        if taken:
            raise RecordTypeError(
                f"{cls.__name__}: the name {taken[0]!r} is reserved by Record; rename the field."
            )
        if not getattr(cls, "kind", "") or not getattr(cls, "key_fields", ()):
            raise RecordTypeError(
                f"{cls.__name__} needs a key and a view:"
                f' class {cls.__name__}(Record, key="id", view="things").'
            )
        unknown = [name for name in cls.key_fields if name not in cls.model_fields]
        if unknown:
            raise RecordTypeError(
                f"{cls.__name__} has no field {unknown[0]!r} for its key; declare the field."
            )
        cls._check_indexes()
        for urls in (*cls.media_fields(ImagesOf).values(), *cls.media_fields(FilesOf).values()):
            if urls not in cls.model_fields:
                raise RecordTypeError(
                    f"{cls.__name__} has no field {urls!r} for its media; declare the field."
                )
        schemas, _ = field_schemas(cls.__pydantic_core_schema__)
        cls.any_fields = tuple(name for name, schema in schemas.items() if holds_any(schema))
        cls.has_nested_sets = has_nested_sets(cls.__pydantic_core_schema__, cls)
        if allows_nan(cls.__pydantic_core_schema__):
            raise RecordTypeError(
                f"{cls.__name__}: a float of a nested model may be NaN, which JSON cannot hold;"
                " use pydantic.FiniteFloat there."
            )
        for name in (cls.kind, *cls.model_fields):
            if not SQL_NAME.fullmatch(name) or len(name) > MAX_NAME_BYTES:
                raise RecordTypeError(
                    f"{cls.__name__}: {name!r} is not a valid SQL name; use a lower-case letter,"
                    f" then letters, digits and underscores, at most {MAX_NAME_BYTES} in all."
                )

    @classmethod
    def _check_indexes(cls) -> None:
        types = {part["name"]: part["type"] for part in cls.sql_fields()}
        for name in itertools.chain(*cls.index_fields, *cls.unique_fields):
            if name in TIME_COLUMNS and (name,) not in cls.unique_fields:
                continue
            if name not in types:
                raise RecordTypeError(
                    f"{cls.__name__} has no field {name!r} for its index; declare the field."
                )
            if types[name] == "jsonb":
                raise RecordTypeError(
                    f"{cls.__name__}: {name!r} has the type jsonb, which has no useful order;"
                    " index a field of another type."
                )

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        bound_schema(schema)
        return schema

    @classmethod
    def draft(cls, /, **values: Any) -> "Draft":
        """Build an unvalidated item of this type, which cannot raise in the callback."""
        return Draft(cls, values)

    @classmethod
    def sql_fields(cls) -> list[dict[str, str]]:
        """Return the fields in order as `{"name", "type"}`, with PostgreSQL's type names."""
        schemas, shared = field_schemas(cls.__pydantic_core_schema__)
        return [
            {"name": name, "type": sql_type_of(schemas[name], shared)} for name in cls.model_fields
        ]

    @classmethod
    def media_fields(cls, marker: type[ImagesOf] | type[FilesOf]) -> dict[str, str]:
        """Return the fields that get links, each with the field that holds its URLs."""
        return {
            name: found.urls
            for name, field in cls.model_fields.items()
            for found in field.metadata
            if isinstance(found, marker)
        }

    @classmethod
    def make_key(cls, values: Sequence[Any]) -> str:
        """Return the text key of a record with these *values*, in the order of the key fields.

        A single value becomes its own text; several values become a JSON array. Raises NotStorable
        if a value is missing or the text is longer than 1000 bytes.
        """
        if len(values) != len(cls.key_fields):
            needed = counted(len(cls.key_fields), "value")
            raise NotStorable(f"the key needs {needed}: {', '.join(cls.key_fields)}")
        only = values[0] if len(values) == 1 else None
        if None in values or only == "":
            missing = next(
                n for n, v in zip(cls.key_fields, values, strict=True) if v is None or only == ""
            )
            raise NotStorable(f"{missing}: the key is missing")
        try:
            text = key_text(values)
            size = len(text if text.isascii() else text.encode())
        except UnicodeEncodeError as error:
            raise NotStorable("the key contains a lone surrogate") from error
        except orjson.JSONEncodeError as error:
            raise NotStorable(f"the key cannot be written as JSON: {error}") from error
        if size > MAX_KEY_BYTES:
            raise NotStorable(f"the key has {size} bytes; the maximum is {MAX_KEY_BYTES}")
        if "\0" in text:
            raise NotStorable("the key contains U+0000, which PostgreSQL cannot store")
        return text

    @classmethod
    def parse_key(cls, values: Sequence[Any]) -> str:
        """Return the text key of raw *values*, converted to their fields' types ("1973" to 1973).

        Raises NotStorable or pydantic's ValidationError.
        """
        adapters = _key_adapters(cls)
        if len(values) == len(adapters):
            values = [
                adapter.validate_python(value)
                for adapter, value in zip(adapters, values, strict=True)
            ]
        return cls.make_key(values)

    def row(self) -> tuple[str, bytes]:
        """Return the text key and the data as JSON. Raises NotStorable."""
        values = self.__dict__
        key = self.make_key([values[name] for name in self.key_fields])
        extra = self.__pydantic_extra__
        try:
            for name in self.any_fields:
                values[name] = sort_sets(values[name])
            if extra:
                extra.update((name, sort_sets(value)) for name, value in extra.items())
            if self.has_nested_sets:
                values_in_order = sort_sets(self.__pydantic_serializer__.to_python(self))
                data = to_json(values_in_order, inf_nan_mode="constants", timedelta_mode="float")
            else:
                data = self.__pydantic_serializer__.to_json(self)
        except ValueError as error:
            reason = str(error).removeprefix("Error serializing to JSON: ")
            raise NotStorable(f"the data cannot be written as JSON: {reason}") from error
        if is_suspect(data):
            # The JSON shows bytes and paths as text; the model shows values that JSON replaces.
            require_storable(json.loads(data, parse_int=str))
            require_storable(self.model_dump())
        return key, data


def field_lists(declared: FieldLists) -> tuple[tuple[str, ...], ...]:
    """Return declared indexes as lists of fields, without repetitions."""
    listed = (declared,) if isinstance(declared, str) else declared
    lists = ((part,) if isinstance(part, str) else tuple(part) for part in listed)
    return tuple(dict.fromkeys(lists))


def key_text(values: Sequence[Any]) -> str:
    """Return the text key of valid *values*; see `Record.make_key`."""
    if len(values) != 1:
        return orjson.dumps(values, default=str).decode()
    return str(values[0].value if isinstance(values[0], Enum) else values[0])


def link_of(record: Record) -> str | None:
    """Return the value of the field `link` if it is text."""
    link = getattr(record, "link", None)
    return link if isinstance(link, str) else None


@cache
def _key_adapters(record: type[Record]) -> list[TypeAdapter[Any]]:
    fields = [record.model_fields[name] for name in record.key_fields]
    types: list[Any] = [Annotated[field.annotation, field] for field in fields]
    return [TypeAdapter(type_) for type_ in types]


class Draft(dict[str, Any]):
    """Unvalidated item with its record type."""

    def __init__(self, record: type[Record], values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.record = record
