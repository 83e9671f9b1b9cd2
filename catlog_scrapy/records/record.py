"""Base class of all record types."""

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, ClassVar

import orjson
from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic_core import CoreSchema, SchemaValidator, core_schema

from catlog_scrapy.plurals import counted
from catlog_scrapy.records.core_schemas import (
    build_serializer,
    build_validator,
    copy_schema,
    holds_any,
    holds_loose_names,
    model_of,
)
from catlog_scrapy.records.key_texts import PLAIN_KEY_TYPES, join_parts, key_part
from catlog_scrapy.records.media import FilesOf, ImagesOf
from catlog_scrapy.records.serialization import write_numbers_once, write_once
from catlog_scrapy.records.sql_names import MAX_FIELDS, field_mistake, view_mistake
from catlog_scrapy.records.sql_types import (
    bound_schema,
    field_schemas,
    model_config_of,
    sql_type_of,
)
from catlog_scrapy.records.stable_json import require_distinct_names_inside, stabilize
from catlog_scrapy.records.storable import NotStorable, is_suspect, require_storable

MAX_KEY_BYTES = 1000
# Names of fields that a declaration lists without giving them a column.
MEMBER_NAME = re.compile(r"[\w .-]+")

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
    provider may share. `untracked` names fields whose new values alone do not change a record.
    Every field is bounded by its SQL type: integers have at most 64 bits, floats are finite,
    datetimes have a time zone. An unknown field does not validate.
    """

    model_config = ConfigDict(
        extra="forbid",
        validate_default=True,
        ser_json_inf_nan="constants",
        ser_json_timedelta="float",
    )

    key_fields: ClassVar[tuple[str, ...]]
    kind: ClassVar[str]
    key_types: ClassVar[tuple[str, ...]]
    has_plain_key: ClassVar[bool]
    any_fields: ClassVar[tuple[str, ...]] = ()
    loose_fields: ClassVar[tuple[str, ...]] = ()
    untracked_fields: ClassVar[tuple[str, ...]] = ()
    # Of a declared kind: `empty_is_null`, `types` of fields that no SQL type tells, and the
    # conditions `item` and `when`; see `takes_item`.
    item_rules: ClassVar[Mapping[str, Any]] = {}
    is_declared: ClassVar[bool] = False
    index_fields: ClassVar[tuple[tuple[str, ...], ...]] = ()
    unique_fields: ClassVar[tuple[tuple[str, ...], ...]] = ()

    def __init_subclass__(
        cls,
        key: str | Sequence[str] = (),
        view: str = "",
        index: FieldLists = (),
        unique: FieldLists = (),
        untracked: str | Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        """Set the arguments as attributes; a subclass inherits those that it does not give."""
        super().__init_subclass__(**kwargs)
        if key:
            cls.key_fields = (key,) if isinstance(key, str) else tuple(key)
        if view:
            cls.kind = view
        if index:
            cls.index_fields = field_lists(index)
        if unique:
            cls.unique_fields = field_lists(unique)
        if untracked:
            listed = (untracked,) if isinstance(untracked, str) else untracked
            cls.untracked_fields = tuple(dict.fromkeys(listed))

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
        cls._bound_shared_types()
        cls._check_names()
        cls._check_indexes()
        cls._check_untracked()
        for urls in (*cls.media_fields(ImagesOf).values(), *cls.media_fields(FilesOf).values()):
            if urls not in cls.model_fields:
                raise RecordTypeError(
                    f"{cls.__name__} has no field {urls!r} for its media; declare the field."
                )
        schemas, _ = field_schemas(cls.__pydantic_core_schema__)
        cls.any_fields = tuple(name for name, schema in schemas.items() if holds_any(schema))
        cls.loose_fields = tuple(
            name
            for name, schema in schemas.items()
            if name not in cls.any_fields and holds_loose_names(schema)
        )
        types = cls.column_types()
        cls.key_types = tuple(types[name] for name in cls.key_fields)
        cls.has_plain_key = PLAIN_KEY_TYPES.issuperset(cls.key_types)

    @classmethod
    def _bound_shared_types(cls) -> None:
        """Bound enumerations and typed dicts too, which pydantic has put in the schema only now."""
        schema = cls._bounded(cls.__pydantic_core_schema__)
        config = model_config_of(schema)
        cls.__pydantic_core_schema__ = schema
        cls.__pydantic_validator__ = build_validator(schema, config)
        cls.__pydantic_serializer__ = build_serializer(schema, config)

    @classmethod
    def _bounded(cls, schema: Any) -> Any:
        """Return a core schema of this type that gives equal values one JSON text."""
        schema = copy_schema(schema)
        takes_numbers = bool(cls.model_config.get("coerce_numbers_to_str"))
        bound_schema(schema, takes_numbers=takes_numbers)
        write_once(schema, cls)
        fields, shared = field_schemas(schema)
        for part in (*fields.values(), *shared.values()):
            if model_of(part) is not cls:
                write_numbers_once(part)
        return schema

    @classmethod
    def _check_names(cls) -> None:
        mistakes = [
            view_mistake(cls.kind),
            *(field_mistake(name) for name in (*cls.key_fields, *cls.model_fields)),
        ]
        for mistake in filter(None, mistakes):
            raise RecordTypeError(f"{cls.__name__}: {mistake}.")
        for name in cls.key_fields:
            if name not in cls.model_fields:
                raise RecordTypeError(
                    f"{cls.__name__} has no field {name!r} for its key; declare the field."
                )
        if len(cls.model_fields) > MAX_FIELDS:
            raise RecordTypeError(
                f"{cls.__name__} has {len(cls.model_fields)} fields; a table has room for"
                f" {MAX_FIELDS}: put fields that belong together into one of the type dict."
            )

    @classmethod
    def _check_untracked(cls) -> None:
        may_have_more = cls.model_config.get("extra") == "allow"
        for name in cls.untracked_fields:
            if name in cls.key_fields:
                raise RecordTypeError(
                    f"{cls.__name__}: {name!r} is a field of the key, by which records are told"
                    " apart; remove it from untracked."
                )
            if not MEMBER_NAME.fullmatch(name):
                raise RecordTypeError(
                    f"{cls.__name__}: {name!r} is not a valid untracked field; use letters, digits,"
                    ' spaces, ".", "-" and "_".'
                )
            if name not in cls.model_fields and not may_have_more:
                raise RecordTypeError(
                    f"{cls.__name__} has no field {name!r} that could be untracked; declare the"
                    " field."
                )

    @classmethod
    def _check_indexes(cls) -> None:
        types = cls.column_types()
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
        bounded: CoreSchema = cls._bounded(handler(source))
        return bounded

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
    def column_types(cls) -> dict[str, str]:
        """Return the SQL types of the fields, by name."""
        return {part["name"]: part["type"] for part in cls.sql_fields()}

    @classmethod
    def has_condition(cls) -> bool:
        """Return whether this kind takes only items of a class or with certain values."""
        return "item" in cls.item_rules or "when" in cls.item_rules

    @classmethod
    def takes_item(cls, item: Any, values: Mapping[str, Any]) -> bool:
        """Return whether an *item* with these *values* meets the conditions of this kind.

        A kind without conditions takes the items that have its key.
        """
        if not cls.has_condition():
            return all(values.get(name) is not None for name in cls.key_fields)
        name = cls.item_rules.get("item")
        return (name is None or type(item).__name__ == name) and all(
            any(
                value == values.get(field) and type(value) is type(values[field])
                for value in allowed
            )
            for field, allowed in cls.item_rules.get("when", {}).items()
        )

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

        A single value becomes its own text; several values become a JSON array. Equal values of a
        field's SQL type, such as 1.5 and 1.50, have one text. Raises NotStorable if a value is
        missing or the text is longer than 1000 bytes.
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
            if not cls.has_plain_key:
                values = list(map(key_part, values, cls.key_types))
            text = join_parts(values, cls.key_types)
            size = len(text if text.isascii() else text.encode())
        except UnicodeEncodeError as error:
            raise NotStorable("the key contains a lone surrogate") from error
        except (orjson.JSONEncodeError, ValueError) as error:
            raise NotStorable(f"the key cannot be written as JSON: {error}") from error
        if size > MAX_KEY_BYTES:
            raise NotStorable(f"the key has {size} bytes; the maximum is {MAX_KEY_BYTES}")
        if "\0" in text:
            raise NotStorable("the key contains U+0000, which PostgreSQL cannot store")
        return text

    @classmethod
    def parse_key(cls, values: Sequence[Any]) -> str:
        """Return the text key of raw *values*, validated as a record's ("1973" becomes 1973).

        Raises NotStorable or pydantic's ValidationError.
        """
        if len(values) == len(cls.key_fields):
            raw = dict(zip(cls.key_fields, values, strict=True))
            valid, _, _ = _key_validator(cls).validate_python(raw)
            values = [valid[name] for name in cls.key_fields]
        return cls.make_key(values)

    def row(self) -> tuple[str, bytes]:
        """Return the text key and the data as JSON. Raises NotStorable."""
        values = self.__dict__
        extra = self.__pydantic_extra__
        try:
            for name in self.any_fields:
                values[name] = stabilize(values[name])
            for name in self.loose_fields:
                require_distinct_names_inside(values[name])
            if extra:
                extra.update((name, stabilize(value)) for name, value in extra.items())
            key = self.make_key([values[name] for name in self.key_fields])
            data = self.__pydantic_serializer__.to_json(self)
        except NotStorable:
            raise
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


def link_of(record: Record) -> str | None:
    """Return the value of the field `link` if it is text."""
    link = getattr(record, "link", None)
    return link if isinstance(link, str) else None


@cache
def _key_validator(record: type[Record]) -> SchemaValidator:
    """Return the validator of a record type's key fields alone, with their own validators."""
    schemas, shared = field_schemas(record.__pydantic_core_schema__)
    fields = {name: core_schema.model_field(schemas[name]) for name in record.key_fields}
    schema = core_schema.model_fields_schema(fields)
    return build_validator(
        core_schema.definitions_schema(schema, list(shared.values())) if shared else schema,
        model_config_of(record.__pydantic_core_schema__),
    )


class Draft(dict[str, Any]):
    """Unvalidated item with its record type."""

    def __init__(self, record: type[Record], values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.record = record
