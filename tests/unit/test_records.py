"""Record types: SQL types, keys, and data that PostgreSQL cannot store."""

import datetime as dt
import enum
import hashlib
import json
import uuid
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace, new_class
from typing import Annotated, Any, Literal

import pytest
from pydantic import (
    AnyUrl,
    BaseModel,
    Field,
    NaiveDatetime,
    ValidationError,
    create_model,
)

from catlog_scrapy.records import Batch, Record, Unchanged, make_record_type, record_types
from catlog_scrapy.records.hashing import content_hash, record_id
from catlog_scrapy.records.record import RecordTypeError
from catlog_scrapy.records.storable import NotStorable, is_suspect


class Size(enum.StrEnum):
    SMALL = "S"


class Weekday(enum.IntEnum):
    MONDAY = 1


class Part(BaseModel):
    weight: float = 0


class Thing(Record, key="id", view="things"):
    id: int
    name: str = ""
    price: Decimal | None = None
    weight: float = 0.0
    seen_at: dt.datetime | None = None
    tags: list[str] = []
    extra: Any = None


class Tagged(Record, key=("vendor", "tag"), view="tagged"):
    vendor: str | None
    tag: Any


class Named(Record, key="name", view="named"):
    name: str | None


def reason(refused: "pytest.ExceptionInfo[ValidationError]") -> tuple[str, str]:
    """Return the place and the type of the only validation error."""
    (error,) = refused.value.errors()
    return ".".join(map(str, error["loc"])), error["type"]


def test_sql_types_of_fields() -> None:
    class Everything(Record, key="id", view="everything"):
        id: uuid.UUID
        flag: bool
        count: int | None
        bounded: Annotated[int, Field(ge=0, le=10)]
        share: float
        price: Decimal
        name: Annotated[str, Field(max_length=3)]
        word: Literal["a", "b"]
        number: Literal[1, 2]
        size: Size
        other_size: Size
        day: Weekday
        link: AnyUrl
        born: dt.date
        opens: dt.time
        lasts: dt.timedelta
        seen: dt.datetime
        local: NaiveDatetime
        tags: list[str]
        part: Part
        either: int | str
        anything: Any

    assert {field["name"]: field["type"] for field in Everything.sql_fields()} == {
        "id": "uuid",
        "flag": "boolean",
        "count": "bigint",
        "bounded": "bigint",
        "share": "double precision",
        "price": "numeric",
        "name": "text",
        "word": "text",
        "number": "jsonb",
        "size": "text",
        "other_size": "text",
        "day": "bigint",
        "link": "text",
        "born": "date",
        "opens": "time",
        "lasts": "interval",
        "seen": "timestamptz",
        "local": "timestamp",
        "tags": "jsonb",
        "part": "jsonb",
        "either": "jsonb",
        "anything": "jsonb",
    }
    assert [field["name"] for field in Everything.sql_fields()] == list(Everything.model_fields)


def test_sql_types_of_a_recursive_record_type() -> None:
    class Category(Record, key="id", view="categories"):
        id: int
        parts: list["Category"] = []

    assert Category.sql_fields() == [
        {"name": "id", "type": "bigint"},
        {"name": "parts", "type": "jsonb"},
    ]


def test_record_row_is_key_and_json() -> None:
    thing = Thing(
        id=7,
        name='Кофе \\u0000 "NaN"',
        price=Decimal("1234.50"),
        seen_at=dt.datetime(2024, 2, 29, 12, tzinfo=dt.UTC),
        extra={"Infinity": [1, None, "\ufffd"]},
    )
    key, data = thing.row()
    assert key == "7"
    assert json.loads(data) == {
        "id": 7,
        "name": 'Кофе \\u0000 "NaN"',
        "price": "1234.50",
        "weight": 0.0,
        "seen_at": "2024-02-29T12:00:00Z",
        "tags": [],
        "extra": {"Infinity": [1, None, "\ufffd"]},
    }


@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [
        ("id", 2**63, "less_than_equal"),
        ("id", -(2**63) - 1, "greater_than_equal"),
        ("id", "seven", "int_parsing"),
        ("id", None, "int_type"),
        ("price", "NaN", "finite_number"),
        ("price", Decimal("Infinity"), "finite_number"),
        ("price", "1e131072", "less_than_equal"),
        ("price", "-1e131072", "greater_than_equal"),
        ("price", "1e-16384", "decimal_max_places"),
        ("weight", float("nan"), "finite_number"),
        ("weight", "-inf", "finite_number"),
        ("seen_at", "2024-02-29T12:00:00", "timezone_aware"),
        ("seen_at", dt.datetime(2024, 2, 29), "timezone_aware"),
        ("colour", "red", "extra_forbidden"),
    ],
)
def test_invalid_record_is_refused(field: str, value: Any, kind: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Thing.model_validate({"id": 1, field: value})
    assert reason(refused) == (field, kind)


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63), "12"])
def test_integers_of_64_bits_validate(number: Any) -> None:
    assert Thing.model_validate({"id": number}).row()[0] == str(number)


@pytest.mark.parametrize("price", ["1e131071", "1e-16383", "-0.00", Decimal("1.5E3")])
def test_decimals_that_numeric_holds_validate(price: Any) -> None:
    assert Thing(id=1, price=price).row()


def test_record_without_its_key_does_not_validate() -> None:
    with pytest.raises(ValidationError) as refused:
        Thing.model_validate({"name": "x"})
    assert reason(refused) == ("id", "missing")


def test_own_bounds_of_a_field_never_widen_the_sql_bounds() -> None:
    class Bounded(Record, key="id", view="bounded"):
        id: Annotated[int, Field(ge=0, le=10**30)]

    for number, kind in ((-1, "greater_than_equal"), (2**63, "less_than_equal")):
        with pytest.raises(ValidationError) as refused:
            Bounded(id=number)
        assert reason(refused) == ("id", kind)


def test_default_values_are_validated() -> None:
    class Careless(Record, key="id", view="careless"):
        id: int
        size: int = 2**70

    with pytest.raises(ValidationError) as refused:
        Careless(id=1)
    assert reason(refused) == ("size", "less_than_equal")


def test_sql_bounds_apply_inside_lists_and_dicts() -> None:
    class Series(Record, key="id", view="series"):
        id: int
        values: list[float] = []
        by_day: dict[str, dt.datetime] = {}

    with pytest.raises(ValidationError) as refused:
        Series(id=1, values=[1, float("nan")])
    assert reason(refused) == ("values.1", "finite_number")
    with pytest.raises(ValidationError) as refused:
        Series.model_validate({"id": 1, "by_day": {"Mon": "2024-02-29T12:00"}})
    assert reason(refused) == ("by_day.Mon", "timezone_aware")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "a\0b"}, r"name: U\+0000, which PostgreSQL cannot store"),
        ({"name": "a\ud800"}, "cannot be written as JSON: .*surrogates not allowed"),
        ({"tags": ["a", "\0"]}, r"tags: U\+0000"),
        ({"extra": {"a": [1, {"b": float("nan")}]}}, "extra.a.b: nan, which JSON cannot hold"),
        ({"extra": (float("-inf"),)}, "extra: -inf, which JSON cannot hold"),
        ({"extra": {"\0": 1}}, r"extra: U\+0000"),
        ({"extra": b"\0"}, r"extra: U\+0000"),
        ({"extra": Path("a\0")}, r"extra: U\+0000"),
        ({"extra": b"\xff"}, "cannot be written as JSON: invalid utf-8"),
        ({"extra": [["\udc00"]]}, "cannot be written as JSON: .*surrogates not allowed"),
        ({"extra": object()}, "cannot be written as JSON: Unable to serialize"),
    ],
)
def test_unstorable_record_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(NotStorable, match=message):
        Thing(id=1, **values).row()


def test_lone_surrogate_in_a_dict_key_is_refused() -> None:
    """Otherwise pydantic would write U+FFFD and silently change the data."""

    class Loose(Record, key="id", view="loose"):
        id: int
        extra: dict[str, Any]

    with pytest.raises(NotStorable, match="extra: a lone surrogate"):
        Loose(id=1, extra={"\ud800": 1}).row()
    assert Loose(id=1, extra={"\ufffd": 1}).row()


@pytest.mark.parametrize("start", [0, 1, 50, 99, 100, 101, 1234, 5000])
def test_integer_of_more_than_1000_digits_is_suspect_at_any_place(start: int) -> None:
    for digits, found in ((1000, False), (1001, True), (5000, True)):
        assert is_suspect(b"x" * start + b"7" * digits + b"x") == found
    assert not is_suspect(b"7x" * 5000)
    with pytest.raises(NotStorable, match="an integer of more than 1000 digits"):
        Thing(id=1, name="x" * start, extra=10**1000).row()
    assert Thing(id=1, name="x" * start, extra=10**1000 - 1).row()


def test_circular_data_is_refused() -> None:
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(NotStorable, match="Circular reference"):
        Thing(id=1, extra=circle).row()


def test_key_text_of_one_and_several_values() -> None:
    assert Thing.make_key([7]) == Thing(id=7).row()[0] == "7"
    assert Tagged.make_key(["a", 'b "\n']) == '["a","b \\"\\n"]'
    assert Tagged(vendor="", tag=Decimal("1.50")).row()[0] == '["","1.5"]'
    assert Named.make_key([Size.SMALL]) == Named.make_key(["S"]) == "S"
    assert len(Named.make_key(["я" * 500]).encode()) == 1000


@pytest.mark.parametrize(
    ("record", "values", "message"),
    [
        (Named, [None], "name: the key is missing"),
        (Named, [""], "name: the key is missing"),
        (Named, [], "the key needs 1 value: name"),
        (Named, ["a", "b"], "the key needs 1 value"),
        (Named, ["x" * 1001], "the key has 1001 bytes; the maximum is 1000"),
        (Named, ["я" * 501], "the key has 1002 bytes"),
        (Named, ["a\0"], r"the key contains U\+0000"),
        (Named, ["\ud800"], "the key contains a lone surrogate"),
        (Tagged, ["a", None], "tag: the key is missing"),
        (Tagged, ["a" * 600, "b" * 400], "the key has 1007 bytes"),
        (Tagged, ["a", "\ud800"], "the key cannot be written as JSON: .*surrogates"),
        (Tagged, ["a", 2**70], "the key cannot be written as JSON: .*64-bit"),
    ],
)
def test_invalid_key_is_refused(record: type[Record], values: list[Any], message: str) -> None:
    with pytest.raises(NotStorable, match=message):
        record.make_key(values)
    if len(values) == len(record.key_fields):
        with pytest.raises(NotStorable, match=message):
            record(**dict(zip(record.key_fields, values, strict=True))).row()


@pytest.mark.parametrize(
    ("options", "fields", "message"),
    [
        ({}, {"id": int}, "Odd needs a key and a view: class Odd"),
        ({"key": "id"}, {"id": int}, "Odd needs a key and a view"),
        ({"view": "odds"}, {"id": int}, "Odd needs a key and a view"),
        ({"key": ("id", "sku"), "view": "odds"}, {"id": int}, "Odd has no field 'sku'"),
        ({"key": "id", "view": "Odds"}, {"id": int}, "'Odds' is not a valid SQL name"),
        ({"key": "id", "view": "1odd"}, {"id": int}, "'1odd' is not a valid SQL name"),
        ({"key": "id", "view": "o" * 64}, {"id": int}, "at most 63"),
        ({"key": "id", "view": 'o"; drop'}, {"id": int}, "is not a valid SQL name"),
        ({"key": "id", "view": "odds"}, {"id": int, "Preis": int}, "'Preis' is not a valid"),
        ({"key": "id", "view": "odds"}, {"id": int, "größe": int}, "'größe' is not a valid"),
        ({"key": "id", "view": "odds"}, {"id": int, "f" * 64: int}, "at most 63"),
        ({"key": "id", "view": "odds"}, {"id": int, "row": int}, "the name 'row' is reserved"),
        ({"key": "kind", "view": "odds"}, {"kind": str}, "the name 'kind' is reserved"),
        ({"key": "id", "view": "pg_class"}, {"id": int}, "'pg_class' begins with 'pg_'"),
        ({"key": "id", "view": "pg_anything"}, {"id": int}, "a name such as 'anything'"),
        ({"key": "id", "view": "default"}, {"id": int}, "a reserved word of SQL; use a name such"),
        ({"key": "id", "view": "order"}, {"id": int}, "'order' is a reserved word of SQL"),
        ({"key": "id", "view": "left"}, {"id": int}, "'left' is a reserved word of SQL"),
        ({"key": "id", "view": "current_user"}, {"id": int}, "is a reserved word of SQL"),
        ({"key": "_id", "view": "odds"}, {"_id": int}, "'_id' begins with an underscore"),
        ({"key": "id", "view": "odds"}, {"id": int, "xmin": int}, "'xmin' is a system column"),
        ({"key": "id", "view": "odds"}, {"id": int, "ctid": int}, "'ctid' is a system column"),
        (
            {"key": "id", "view": "odds", "untracked": "id"},
            {"id": int},
            "'id' is a field of the key",
        ),
        (
            {"key": "id", "view": "odds", "untracked": ("name",)},
            {"id": int},
            "has no field 'name' that could be untracked",
        ),
        (
            {"key": "id", "view": "odds"},
            {"id": int, **{f"f{number}": int for number in range(1500)}},
            "Odd has 1501 fields; a table has room for 1500",
        ),
    ],
)
# pydantic also warns of a field that hides a method.
@pytest.mark.filterwarnings("ignore:Field name .* shadows an attribute:UserWarning")
def test_record_type_without_a_valid_table_is_refused(
    options: dict[str, Any], fields: dict[str, type], message: str
) -> None:
    with pytest.raises(RecordTypeError, match=message):
        new_class(
            "Odd", (Record,), options, lambda namespace: namespace.update(__annotations__=fields)
        )


def test_record_subclass_inherits_key_and_view() -> None:
    class Better(Thing):
        colour: str = ""

    class Other(Thing, view="others"):
        pass

    assert (Better.key_fields, Better.kind) == (("id",), "things")
    assert (Other.key_fields, Other.kind) == (("id",), "others")


def test_draft_of_a_record_is_not_validated() -> None:
    draft = Thing.draft(id="seven", cls="any", self=1, values=2)
    assert draft == {"id": "seven", "cls": "any", "self": 1, "values": 2}
    assert draft.record is Thing


def test_batch_length_and_key_values_of_unchanged() -> None:
    assert len(Batch([{"id": 1}, Thing.draft(id=2)], Thing)) == 2
    assert Unchanged(7).values() == [7]
    assert Unchanged(("a", "b")).values() == ["a", "b"]


def test_record_types_of_a_spider() -> None:
    assert record_types(SimpleNamespace()) == ()
    assert record_types(SimpleNamespace(record=Thing)) == (Thing,)
    assert record_types(SimpleNamespace(record=[Thing, Named])) == (Thing, Named)


def test_record_type_of_a_foreign_spider() -> None:
    book = make_record_type("books", ["isbn", "shop"], {"price": "numeric", "shop": "bigint"})
    assert (book.kind, book.key_fields) == ("books", ("isbn", "shop"))
    assert book.sql_fields() == [
        {"name": "isbn", "type": "text"},
        {"name": "shop", "type": "bigint"},
        {"name": "price", "type": "numeric"},
    ]
    item = {"isbn": 978, "shop": "3", "price": "7.50", "title": "Дым", "row": [1]}
    assert book.model_validate(item).row() == (
        '["978",3]',
        '{"isbn":"978","shop":3,"price":"7.50","title":"Дым","row":[1]}'.encode(),
    )
    with pytest.raises(NotStorable, match="title: nan"):
        book.model_validate({**item, "title": [float("nan")]}).row()
    with pytest.raises(ValidationError) as refused:
        book.model_validate({"isbn": "978"})
    assert reason(refused) == ("shop", "missing")


def test_field_types_of_foreign_record_types() -> None:
    words = ["text", "bigint", "double precision", "numeric", "boolean", "jsonb"]
    fields = {f"f{number}": word for number, word in enumerate(words)}
    made = make_record_type("words", ["id"], fields)
    assert [field["type"] for field in made.sql_fields()] == ["text", *words]
    assert made.model_validate({"id": "a"}).row()[0] == "a"


@pytest.mark.parametrize(
    ("kind", "key", "fields", "message"),
    [
        (
            "books",
            ["isbn"],
            {"price": "money"},
            "'money' is not a valid type of price; use one of text, b",
        ),
        ("books", [], {}, "needs a key and a view"),
        ("", ["isbn"], {}, "needs a key and a view"),
        ("My Books", ["isbn"], {}, "is not a valid SQL name"),
        ("books", ["ISBN"], {}, "'ISBN' is not a valid SQL name"),
        ("books", ["kind"], {}, "the name 'kind' is reserved by Record"),
        ("books", ["isbn"], {"model_config": "text"}, "'model_config' is reserved by pydantic"),
        ("books", ["model_fields"], {}, "'model_fields' is reserved by pydantic"),
        ("books", ["isbn"], {"model_dump": "jsonb"}, "'model_dump' is reserved by pydantic"),
        ("books", ["_id"], {}, "item\\[.id.\\] = item.pop"),
        ("books", ["isbn"], {"_score": "bigint"}, "'_score' begins with an underscore"),
        ("books", ["isbn"], {"cmax": "bigint"}, "'cmax' is a system column"),
        ("books", ["isbn"], {f"f{n}": "text" for n in range(1700)}, "has 1701 fields"),
        ("pg_type", ["isbn"], {}, "'pg_type' begins with 'pg_'"),
        ("default", ["isbn"], {}, "'default' is a reserved word"),
        ("table", ["isbn"], {}, "'table' is a reserved word"),
    ],
)
@pytest.mark.filterwarnings("ignore:Field name .* shadows an attribute:UserWarning")
def test_invalid_foreign_record_type_is_refused(
    kind: str, key: list[str], fields: dict[str, str], message: str
) -> None:
    with pytest.raises(RecordTypeError, match=message):
        make_record_type(kind, key, fields)


@pytest.mark.parametrize("name", ["json", "copy", "schema", "model_name", "oid", "data", "user"])
def test_field_may_have_the_name_of_a_method_of_pydantic(name: str) -> None:
    made = make_record_type("books", ["isbn"], {name: "text"})
    _, data = made.model_validate({"isbn": "1", name: "x"}).row()
    assert json.loads(data) == {"isbn": "1", name: "x"}


def test_field_types_of_declared_kinds_convert_text() -> None:
    fields = {
        "born": "date",
        "opens": "time",
        "local": "timestamp",
        "seen": "timestamptz",
        "lasts": "interval",
        "code": "uuid",
        "at": "unix_seconds",
        "ms": "unix_milliseconds",
    }
    made = make_record_type("words", ["id"], fields)
    types = {part["name"]: part["type"] for part in made.sql_fields()}
    assert types == {
        "id": "text",
        **fields,
        "at": "timestamptz",
        "ms": "timestamptz",
    }
    item = {
        "id": "a",
        "born": "2026-01-28",
        "opens": "09:30",
        "local": "2026-01-28 09:30:00",
        "seen": "2026-01-28T09:30:00+03:00",
        "lasts": "PT90S",
        "code": "{0000002A-0000-0000-0000-0000000000AB}",
        "at": "1769601600",
        "ms": 1769601600123,
    }
    assert json.loads(made.model_validate(item).row()[1]) == {
        "id": "a",
        "born": "2026-01-28",
        "opens": "09:30:00",
        "local": "2026-01-28T09:30:00",
        "seen": "2026-01-28T09:30:00+03:00",
        "lasts": 90.0,
        "code": "0000002a-0000-0000-0000-0000000000ab",
        "at": "2026-01-28T12:00:00Z",
        "ms": "2026-01-28T12:00:00.123000Z",
    }


def test_empty_text_is_null_where_the_kind_says_so() -> None:
    fields = {"price": "numeric", "name": "text", "born": "date", "tags": "jsonb"}
    item = {"id": "a", "price": "", "name": " ", "born": "\t", "tags": "", "other": ""}
    made = make_record_type("rows", ["id"], fields, rules={"empty_is_null": True})
    assert json.loads(made.model_validate(item).row()[1]) == {
        "id": "a",
        **dict.fromkeys(fields),
        "other": "",
    }
    with pytest.raises(NotStorable, match="the key is missing"):
        made.model_validate({**item, "id": ""}).row()
    with pytest.raises(ValidationError):
        make_record_type("rows", ["id"], fields).model_validate(item)


def test_parsed_key_equals_the_records_key() -> None:
    class Yearly(Record, key=("vendor", "year"), view="yearly"):
        vendor: str
        year: int

    assert Yearly.parse_key(["v", "1973"]) == Yearly(vendor="v", year=1973).row()[0]
    with pytest.raises(ValidationError):
        Yearly.parse_key(["v", "no year"])
    with pytest.raises(NotStorable, match="2 values"):
        Yearly.parse_key(["v"])


def test_float_of_a_nested_model_is_finite() -> None:
    class Loose(BaseModel):
        weight: float

    class Heavy(Record, key="id", view="heavy"):
        id: int
        part: Loose

    with pytest.raises(ValidationError) as refused:
        Heavy.model_validate({"id": 1, "part": {"weight": "nan"}})
    assert reason(refused) == ("part.weight", "finite_number")
    with pytest.raises(NotStorable, match=r"part\.weight: nan, which JSON cannot hold"):
        Heavy(id=1, part=Loose(weight=float("nan"))).row()


@pytest.mark.parametrize("name", ["type", "metadata", "serialization", "ref", "cls"])
def test_field_may_have_the_name_of_a_part_of_a_core_schema(name: str) -> None:
    inner = create_model("Inner", **{name: (int, 0)})
    made = create_model(
        "Made",
        __base__=Record,
        __cls_kwargs__={"key": "id", "view": "made"},
        **{"id": (int, ...), name: (int, 0), "inner": (inner | None, None)},
    )
    _, data = made.model_validate({"id": 1, name: 2, "inner": {name: 3}}).row()
    assert json.loads(data) == {"id": 1, name: 2, "inner": {name: 3}}
    for values in ({name: True}, {"inner": {name: True}}, {"inner": {name: 2**63}}):
        with pytest.raises(ValidationError):
            made.model_validate({"id": 1, **values})


class Tags(BaseModel):
    names: set[str]


class Sorted(Record, key="id", view="sorted"):
    id: int
    tags: set[str] = set()
    nested: frozenset[frozenset[int]] = frozenset()
    anything: Any = None
    models: list[Tags] = []


def test_sets_are_written_in_one_order() -> None:
    words = [chr(number) for number in range(97, 123)]
    sets = [set(words), {*words[13:], *words[:13]}, {*words[::-1]}]
    rows = {
        Sorted(
            id=1,
            tags=tags,
            nested=frozenset([frozenset([3, 20, 1]), frozenset([2])]),
            anything={"x": [tags, 5, "text"]},
            models=[Tags(names=tags)],
        ).row()
        for tags in sets
    }
    [(_, data)] = rows
    written = json.loads(data)
    assert written["tags"] == written["anything"]["x"][0] == written["models"][0]["names"] == words
    assert written["nested"] == [[1, 20, 3], [2]]


def test_sets_of_undeclared_fields_are_written_in_one_order() -> None:
    kind = make_record_type("loose_things", ["id"])
    item = {"id": "1", "tags": {"b", "a", "c"}, "deep": {"x": frozenset([2, 1])}}
    assert kind.model_validate(item).row() == (
        "1",
        b'{"id":"1","tags":["a","b","c"],"deep":{"x":[1,2]}}',
    )


def test_hashes_have_a_documented_input() -> None:
    provider = uuid.UUID("00000000-0000-0000-0000-00000000002a")
    digest = hashlib.blake2b(provider.bytes + "ключ".encode(), digest_size=16).digest()
    assert record_id(provider, "ключ") == uuid.UUID(bytes=digest)
    assert content_hash(b"{}") == hashlib.blake2b(b"{}", digest_size=16).digest()
