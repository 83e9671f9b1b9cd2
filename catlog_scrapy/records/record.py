"""The base of all record types, and the shapes in which a spider yields records."""

import json
import re
from collections.abc import Mapping, Sequence
from enum import Enum
from functools import cache
from typing import Annotated, Any, ClassVar

import orjson
from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, TypeAdapter
from pydantic_core import CoreSchema

from catlog_scrapy.records.media import FilesOf, ImagesOf
from catlog_scrapy.records.sql_types import (
    MAX_NAME_BYTES,
    allows_nan,
    bound_schema,
    field_schemas,
    sql_type_of,
)
from catlog_scrapy.records.storable import SUSPECT_JSON, NotStorable, require_storable

MAX_KEY_BYTES = 1000


SQL_NAME = re.compile(r"[a-z][a-z0-9_]*")


class RecordTypeError(TypeError):
    """A record type whose key, view or fields cannot become a table. Raised when it is defined."""


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
        if allows_nan(cls.__pydantic_core_schema__):
            raise RecordTypeError(
                f"{cls.__name__}: a float in a model inside of it may be NaN, which JSON cannot"
                " hold; write pydantic.FiniteFloat there."
            )
        for name in (cls.kind, *cls.model_fields):
            if not SQL_NAME.fullmatch(name) or len(name) > MAX_NAME_BYTES:
                raise RecordTypeError(
                    f"{cls.__name__}: {name!r} is no plain SQL name;"
                    " use lower-case letters, digits and underscores, 63 at most."
                )

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        bound_schema(schema)
        return schema

    @classmethod
    def draft(cls, /, **values: Any) -> "Draft":
        """An unvalidated item of this type: built in a callback, it cannot raise there."""
        return Draft(cls, values)

    @classmethod
    def sql_fields(cls) -> list[dict[str, str]]:
        """Its fields in order, as `{"name", "type"}`, the type as PostgreSQL names it."""
        schemas, shared = field_schemas(cls.__pydantic_core_schema__)
        return [
            {"name": name, "type": sql_type_of(schemas[name], shared)} for name in cls.model_fields
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
    def make_key(cls, values: Sequence[Any]) -> str:
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
    def parse_key(cls, values: Sequence[Any]) -> str:
        """The same of raw *values*, read as their fields' types: "1973" as the year 1973.

        Raises NotStorable, or pydantic's ValidationError.
        """
        adapters = _key_adapters(cls)
        if len(values) == len(adapters):
            values = [
                adapter.validate_python(value)
                for adapter, value in zip(adapters, values, strict=True)
            ]
        return cls.make_key(values)

    def row(self) -> tuple[str, bytes]:
        """Its key and its data as JSON, both as PostgreSQL will take them; else NotStorable."""
        values = self.__dict__
        key = self.make_key([values[name] for name in self.key_fields])
        try:
            data = self.__pydantic_serializer__.to_json(self)
        except ValueError as error:
            reason = str(error).removeprefix("Error serializing to JSON: ")
            raise NotStorable(f"not to be written as JSON: {reason}") from error
        if SUSPECT_JSON.search(data):
            # As it will be sent: bytes and paths, too, are text there. Then as it was given.
            require_storable(json.loads(data, parse_int=str))
            require_storable(self.model_dump())
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
