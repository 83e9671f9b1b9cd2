"""Values of records: one key text for equal values, one JSON for equal content, and refusals."""

import datetime as dt
import enum
import json
import os
import subprocess
import sys
import textwrap
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import new_class
from typing import Annotated, Any, Literal
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NaiveDatetime,
    PlainSerializer,
    StringConstraints,
    TypeAdapter,
    WrapSerializer,
    create_model,
    field_serializer,
    model_serializer,
)
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import TypedDict

from catlog_scrapy.records import (
    Record,
    Removed,
    Unchanged,
    UnixTime,
    make_record_type,
)
from catlog_scrapy.records.key_texts import key_text
from catlog_scrapy.records.validation import ItemValidator, ValidatedItem


def a_record_type(annotation: Any, name: str = "value", **options: Any) -> type[Record]:
    """Return a record type with a field *name* of this type, by default besides its key."""
    fields = {"id": int, name: annotation} if name != "id" else {name: annotation}
    made = new_class(
        "Made",
        (Record,),
        {"key": "id", "view": "made", **options},
        lambda namespace: namespace.update(__annotations__=fields),
    )
    assert issubclass(made, Record)
    return made


def keys_of(annotation: Any, *values: Any) -> set[str]:
    """Return the text keys of records whose key has this type and these *values*."""
    record = a_record_type(annotation, "id")
    return {record.model_validate({"id": value}).row()[0] for value in values}


def validated(record: type[Record], item: Any) -> ValidatedItem:
    made = ValidatedItem(item)
    ItemValidator({record.kind: record}).validate(item, None, made)
    return made


def refusal(annotation: Any, value: Any) -> str:
    """Return the only reason for which an item with this field is rejected."""
    made = validated(a_record_type(annotation), {"id": 1, "value": value})
    [(_, [reason])] = made.rejections
    return reason


def json_of(annotation: Any, value: Any) -> Any:
    made = validated(a_record_type(annotation), {"id": 1, "value": value})
    assert not made.rejections, made.rejections
    [(_, _, data, _)] = made.rows
    assert data is not None
    return json.loads(data)["value"]


class Grade(enum.Enum):
    LOW = 1
    NAMED = "low"


UnixSeconds = Annotated[dt.datetime, UnixTime()]
UnixMilliseconds = Annotated[dt.datetime, UnixTime("milliseconds")]
NOON = dt.datetime(2026, 1, 28, 12, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("annotation", "values", "key"),
    [
        (Decimal, ["1", "1.0", "1.00", 1, Decimal("1E+0")], "1"),
        (Decimal, ["100", "1E+2", Decimal("100.000"), 1e2], "100"),
        (Decimal, ["0", "-0", "0.000", "-0E+3"], "0"),
        (Decimal, ["-1.50", "-1.5"], "-1.5"),
        (Decimal, ["1E-7", "0.0000001"], "0.0000001"),
        (float, [0.0, -0.0, "0"], "0.0"),
        (float, [1, 1.0, "1.00", "1e0"], "1.0"),
        (
            dt.datetime,
            [
                NOON,
                NOON.isoformat(),
                "2026-01-28T15:00:00+03:00",
                "2026-01-28T12:00:00.000000Z",
                NOON.astimezone(ZoneInfo("Asia/Kathmandu")),
            ],
            "2026-01-28T12:00:00Z",
        ),
        (NaiveDatetime, ["2026-01-28", "2026-01-28T00:00:00.000"], "2026-01-28T00:00:00"),
        (dt.date, ["2026-01-28", dt.date(2026, 1, 28)], "2026-01-28"),
        (dt.time, ["12:00", "12:00:00.000000"], "12:00:00"),
        (dt.timedelta, ["P1D", "PT24H", 86400, dt.timedelta(hours=24)], "P1D"),
        (
            UUID,
            ["{0000002A-0000-0000-0000-0000000000AB}", "0000002a0000000000000000000000ab"],
            "0000002a-0000-0000-0000-0000000000ab",
        ),
        (bool, [True, "yes", 1], "true"),
        (Any, [1, 1.0], "1"),
        (Any, [Decimal("1.50"), Decimal("1.5")], '"1.5"'),
        (Any, [{"a": 1, "b": [2.0]}, {"b": [2], "a": 1.0}], '{"a":1,"b":[2]}'),
        (Any, [{"c", "a", "b"}, frozenset("bca")], '["a","b","c"]'),
        (Grade, [Grade.LOW, 1], "1"),
    ],
)
def test_equal_values_of_a_sql_type_have_one_key(
    annotation: Any, values: list[Any], key: str
) -> None:
    assert keys_of(annotation, *values) == {key}


@pytest.mark.parametrize(
    ("annotation", "values"),
    [
        (Any, [1, "1", True, "true", [1]]),
        (int | str, [1, "1"]),
        (Grade, [Grade.LOW, Grade.NAMED]),
        (str, ["é", "e\u0301", "E", "e", "1", "1.0"]),
        (Decimal, ["1", "1.0000000000000000000000000000001", "10", "100"]),
        (float, [0.1, 0.1 + 2**-50, 1e22, 1e23]),
        (dt.datetime, [NOON, NOON + dt.timedelta(microseconds=1)]),
    ],
)
def test_different_values_of_a_sql_type_have_different_keys(
    annotation: Any, values: list[Any]
) -> None:
    assert len(keys_of(annotation, *values)) == len(values)


def test_key_of_several_values_is_canonical_in_each_of_them() -> None:
    class Offer(Record, key=("shop", "price", "at", "share"), view="offers"):
        shop: str
        price: Decimal
        at: dt.datetime
        share: float

    offers = [
        Offer(shop="a", price=Decimal("1.50"), at=NOON, share=-0.0),
        Offer.model_validate(
            {"shop": "a", "price": "1.5", "at": "2026-01-28T17:45+05:45", "share": 0}
        ),
    ]
    assert {offer.row()[0] for offer in offers} == {'["a","1.5","2026-01-28T12:00:00Z","0.0"]'}


@pytest.mark.parametrize(
    ("sql_type", "loaded", "read"),
    [
        ("numeric", Decimal("1.50"), Decimal("1.5")),
        ("double precision", -0.0, 0.0),
        ("timestamptz", NOON, NOON.astimezone(ZoneInfo("America/New_York"))),
        ("interval", dt.timedelta(days=1), dt.timedelta(hours=24)),
        ("jsonb", {"a": 1.0}, {"a": 1}),
        ("uuid", UUID(int=42), str(UUID(int=42))),
    ],
)
def test_key_of_a_record_can_be_made_from_its_columns(
    sql_type: str, loaded: Any, read: Any
) -> None:
    assert key_text([loaded], [sql_type]) == key_text([read], [sql_type])


@pytest.mark.parametrize("named", [Unchanged, Removed])
def test_key_of_unchanged_and_removed_is_validated_as_that_of_a_record(named: Any) -> None:
    record = a_record_type(Decimal, "id")
    [(_, key, _, _)] = validated(record, named("1.50")).rows
    assert key == record.model_validate({"id": "1.5"}).row()[0] == "1.5"
    for value in (Decimal("NaN"), True, "1_000", float("inf"), "1e131072"):
        assert validated(record, named(value)).rejections, value
    times = a_record_type(dt.datetime, "id")
    for value in (20260128, "2026", "0001-01-01T00:00:00+03:00"):
        assert validated(times, named(value)).rejections, value
    declared = make_record_type("books", ["isbn"])
    [(_, key, _, _)] = validated(declared, named(978)).rows
    assert key == declared.model_validate({"isbn": 978}).row()[0] == "978"


NOT_A_NUMBER = [
    Decimal("NaN"),
    Decimal("sNaN"),
    Decimal("Infinity"),
    Decimal("-Infinity"),
    float("nan"),
    float("inf"),
]


@pytest.mark.parametrize("value", NOT_A_NUMBER, ids=str)
@pytest.mark.parametrize("place", [lambda v: v, lambda v: [{"a": (v,)}]])
def test_not_a_number_in_undeclared_data_rejects_the_item(value: Any, place: Any) -> None:
    declared = make_record_type("books", ["isbn"])
    made = validated(declared, {"isbn": "1", "extra": place(value)})
    [(_, [reason])] = made.rejections
    assert "which JSON cannot hold" in reason
    assert not made.rows


@pytest.mark.parametrize("value", NOT_A_NUMBER, ids=str)
@pytest.mark.parametrize("field", ["isbn", "title"])
def test_not_a_number_in_a_text_field_rejects_the_item(value: Any, field: str) -> None:
    declared = make_record_type("books", ["isbn"], {"title": "text"})
    made = validated(declared, {"isbn": "1", field: value})
    assert made.rejections[0][1] == [
        f"{field}: NaN and infinite numbers are not valid text; yield None"
    ]


def test_not_a_number_is_no_text_of_a_record_type_that_takes_numbers() -> None:
    record = a_record_type(str, coerce_numbers_to_str=True)
    for value in NOT_A_NUMBER:
        made = validated(record, {"id": 1, "value": value})
        assert made.rejections[0][1] == [
            "value: NaN and infinite numbers are not valid text; yield None"
        ]
    assert validated(record, {"id": 1, "value": 1.5}).rows


def test_only_kind_of_a_declaration_has_its_condition_too() -> None:
    record = make_record_type("books", ["isbn"], rules={"when": {"type": ["book"], "sold": [True]}})
    item = {"isbn": "1", "type": "book", "sold": True}
    assert validated(record, item).rows
    for other in ({"type": "film"}, {"sold": 1}, {"sold": "true"}, {"type": None}):
        assert "fits none of the kinds" in validated(record, {**item, **other}).rejections[0][1][0]
    assert validated(record, Unchanged("1")).rows
    assert validated(record, Removed("1")).rows


@pytest.mark.parametrize(
    ("members", "name"),
    [
        ({1: "a", "1": "b"}, "1"),
        ({None: 1, "None": 2}, "None"),
        ({True: 1, "true": 2}, "true"),
        ({1.5: 1, "1.5": 2}, "1.5"),
        ({(1, 2): 1, "1,2": 2}, "1,2"),
        ({dt.date(2026, 1, 1): 1, "2026-01-01": 2}, "2026-01-01"),
        (OrderedDict({1: 1, "1": 2}), "1"),
    ],
)
@pytest.mark.parametrize("place", [lambda v: v, lambda v: [{"deep": v}]])
def test_members_with_one_name_in_json_reject_the_item(members: Any, name: str, place: Any) -> None:
    expected = f"2 members of an object have the name {name!r}"
    assert expected in refusal(Any, place(members))
    declared = make_record_type("books", ["isbn"])
    made = validated(declared, {"isbn": "1", "extra": place(members)})
    assert expected in made.rejections[0][1][0]


class Shelf(BaseModel):
    places: dict[int | str, int] = {}
    tags: list[str] = []
    price: Decimal = Decimal(0)


@pytest.mark.parametrize(
    ("annotation", "members"),
    [
        (dict[int, str], {1: "a", "1": "b"}),
        (dict[int, str], {"1": "a", "01": "b"}),
        (dict[str, int], {"a": 1, b"a": 2}),
        (dict[UUID, int], {UUID(int=42): 1, str(UUID(int=42)): 2}),
        (dict[dt.date, int], {dt.date(2026, 1, 28): 1, "2026-01-28": 2}),
        (dict[Decimal, int], {"1.5": 1, "1.50": 2}),
        (dict[float, int], {0.0: 1, "-0": 2}),
        (dict[Annotated[str, StringConstraints(to_lower=True)], int], {"A": 1, "a": 2}),
    ],
    ids=str,
)
def test_members_that_validate_as_one_name_reject_the_item(annotation: Any, members: Any) -> None:
    expected = "several members of the object have one name"
    assert expected in refusal(annotation, members)
    assert expected in refusal(list[annotation], [members])
    assert expected in refusal(create_model("Outer", inner=(annotation, ...)), {"inner": members})


def test_typed_object_with_distinct_members_validates() -> None:
    assert json_of(dict[int, str], {1: "a", "2": "b"}) == {"1": "a", "2": "b"}
    assert "Input should be a valid dictionary" in refusal(dict[int, str], [1])


def test_members_with_one_name_in_a_typed_field_reject_the_item() -> None:
    members = {1: 1, "1": 2}
    assert "2 members" in refusal(dict[int | str, int], members)
    assert "2 members" in refusal(list[dict[Any, int]], [members])
    assert "2 members" in refusal(Shelf, {"places": members})
    assert json_of(dict[int, int], {1: 1, 2: 2}) == {"1": 1, "2": 2}
    assert json_of(dict[int | str, int], {1: 1, "2": 2}) == {"1": 1, "2": 2}


@pytest.mark.parametrize(
    "value", ["20260128", "2026", "-1", "+1.5", 2026, 1.5, True, b"2026", Decimal(5)]
)
def test_number_is_not_a_datetime(value: Any) -> None:
    message = "a number is not a valid date or time; yield ISO 8601 text"
    assert message in refusal(dt.datetime, value)
    assert message in refusal(NaiveDatetime, value)
    assert message in refusal(dt.datetime | None, value)
    assert message in refusal(list[dt.datetime], [value])


@pytest.mark.parametrize("annotation", [dt.date, dt.time])
@pytest.mark.parametrize("value", [0, 86400, "0", "86400", True, 0.0])
def test_number_is_neither_a_date_nor_a_time_of_day(annotation: Any, value: Any) -> None:
    assert "a number is not a valid date or time" in refusal(annotation, value)


def test_unix_times_are_read_in_the_declared_unit() -> None:
    for value in (1769601600, "1769601600", 1769601600.0, Decimal("1769601600")):
        assert json_of(UnixSeconds, value) == "2026-01-28T12:00:00Z"
    assert json_of(UnixMilliseconds, 1769601600123) == "2026-01-28T12:00:00.123000Z"
    assert json_of(UnixMilliseconds | None, None) is None
    for optional in (
        Annotated[dt.datetime | None, UnixTime()],
        Annotated[UnixSeconds | None, Field(description="optional")],
        UnixMilliseconds | None,
    ):
        assert json_of(optional, None) is None
    assert json_of(Annotated[dt.datetime | None, UnixTime()], 1769601600) == "2026-01-28T12:00:00Z"
    for value in (True, "soon", float("nan"), 10**15, "2026-01-28", None):
        assert refusal(UnixSeconds, value)
    declared = make_record_type("books", ["isbn"], {"at": "unix_seconds", "seen": "timestamptz"})
    assert {part["type"] for part in declared.sql_fields()} == {"text", "timestamptz"}
    item = {"isbn": "1", "at": "1769601600", "seen": NOON}
    [(_, _, data, _)] = validated(declared, item).rows
    assert json.loads(data or b"")["at"] == "2026-01-28T12:00:00Z"


@pytest.mark.parametrize("annotation", [int, float, Decimal, Literal[1, 2], dt.timedelta])
@pytest.mark.parametrize("value", [True, False])
def test_boolean_is_not_a_number(annotation: Any, value: bool) -> None:
    assert refusal(annotation, value) in (
        "value: a boolean is not a valid number; yield a number or None",
        "value: Decimal input should be an integer, float, string or Decimal object",
    )


def test_boolean_is_not_a_member_of_an_enumeration_of_numbers() -> None:
    class Weekday(enum.IntEnum):
        MONDAY = 1

    assert "a boolean is not a valid number" in refusal(Weekday, True)
    assert json_of(Weekday, "1") == 1
    assert json_of(bool, True) is True
    assert json_of(int | bool, True) is True


@pytest.mark.parametrize("annotation", [int, float, Decimal])
@pytest.mark.parametrize("value", ["1_000", "1_0", b"1_0"])
def test_number_with_underscores_is_refused(annotation: Any, value: Any) -> None:
    assert refusal(annotation, value)
    declared = make_record_type("books", ["isbn"], {"value": "bigint"})
    assert validated(declared, {"isbn": "1", "value": value}).rejections


def test_reason_names_the_branch_of_a_union_and_not_its_check() -> None:
    made = validated(a_record_type(int | float), {"id": 1, "value": True})
    [(_, reasons)] = made.rejections
    assert [reason.partition(": ")[0] for reason in reasons] == [
        "value.constrained-int",
        "value.float",
    ]
    made = validated(a_record_type(dict[int, str] | int), {"id": 1, "value": {"x": "1"}})
    [(_, reasons)] = made.rejections
    assert [reason.partition(": ")[0] for reason in reasons] == [
        "value.dict.x.[key]",
        "value.constrained-int",
    ]


@pytest.mark.parametrize(
    "value",
    [
        "0001-01-01T00:00:00+03:00",
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-05:00",
        dt.datetime.max.replace(tzinfo=dt.timezone(dt.timedelta(hours=-12))),
        dt.datetime.min.replace(tzinfo=ZoneInfo("Asia/Tokyo")),
    ],
)
def test_instant_outside_of_the_years_1_to_9999_in_utc_is_refused(value: Any) -> None:
    assert "Input should be" in refusal(dt.datetime, value)


def test_instants_at_the_ends_of_the_years_are_accepted() -> None:
    for value in ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"):
        assert json_of(dt.datetime, value) == value
    assert json_of(dt.datetime, "0001-01-01T03:00:00+03:00") == "0001-01-01T03:00:00+03:00"


def test_duration_and_time_that_their_sql_types_cannot_hold_are_refused() -> None:
    assert "100000000 days" in refusal(dt.timedelta, "P999999999D")
    assert "timezone" in refusal(dt.time, "12:00+03:00")


def test_offset_of_seconds_is_written_as_utc() -> None:
    local = dt.datetime(1800, 1, 1, tzinfo=ZoneInfo("Europe/Moscow"))  # UTC+02:30:17
    assert json_of(dt.datetime, local) == "1799-12-31T21:29:43Z"


@dataclass
class Holder:
    tags: set[str]


class Serialized(BaseModel):
    tags: frozenset[str]

    @field_serializer("tags")
    def list_tags(self, tags: frozenset[str]) -> list[str]:
        return list(tags)


class WhollySerialized(BaseModel):
    groups: list[set[str] | None]

    @model_serializer
    def join_groups(self) -> str:
        return " ".join(",".join(group) for group in self.groups if group)


class SerializedRecord(Record, key="id", view="serialized"):
    id: int
    value: set[str] = set()

    @field_serializer("value")
    def list_value(self, value: set[str]) -> list[str]:
        return [*value]


Listed = Annotated[set[str], PlainSerializer(list)]

UNORDERED = """
    import sys
    from tests.unit.test_record_values import rows_of_sets
    sys.stdout.write(repr(rows_of_sets()))
"""


def rows_of_sets() -> list[Any]:
    """Return the JSON of values that contain sets, in this process."""
    words = {"a", "b", "c", "d", "e", "f", "g", "h"}
    pairs = {(word, number) for word in words for number in (1, 2)}
    return [
        json_of(set[str], words),
        json_of(frozenset[str], words),
        json_of(list[str], words),
        json_of(list[str], frozenset(words)),
        json_of(tuple[str, ...], words),
        json_of(list[str], dict.fromkeys(words, 1).keys() & words),
        json_of(list[list[str]], [words]),
        json_of(list[tuple[str, int]], pairs),
        json_of(dict[str, list[str]], {"x": words}),
        json_of(Any, defaultdict(set, x=words)),
        json_of(Any, OrderedDict(x=[words])),
        json_of(Any, deque([words])),
        json_of(Any, Holder(words)),
        json_of(Any, {"deep": (frozenset([frozenset(words)]),)}),
        json_of(Holder, {"tags": words}),
        json_of(Shelf, {"tags": words}),
        json_of(list[Shelf], [{"tags": words}]),
        json_of(set[int] | None, {3, 1, 2}),
        json_of(Listed, words),
        json_of(list[Listed | None], [words]),
        json_of(Annotated[frozenset[str], PlainSerializer(",".join)], words),
        json_of(Annotated[list[set[str]], PlainSerializer(lambda v: list(v[0]))], [words]),
        json_of(Annotated[set[str], WrapSerializer(lambda v, handler: list(v))], words),
        json_of(Serialized, {"tags": words}),
        json_of(WhollySerialized, {"groups": [words, None]}),
        SerializedRecord(id=1, value=words).row(),
    ]


def test_sets_have_one_json_in_all_processes() -> None:
    """The order of a set of strings differs between processes: see PYTHONHASHSEED."""
    script, root = textwrap.dedent(UNORDERED), Path(__file__).parents[2]
    outputs = Counter(
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=root,
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in (1, 2, 3)
    )
    assert list(outputs.values()) == [3]


@pytest.mark.parametrize(
    ("annotation", "first", "second"),
    [
        (list[Decimal], ["12.5"], ["12.50"]),
        (dict[str, Decimal], {"a": "1E+2"}, {"a": 100}),
        (Any, {"a": Decimal("12.5")}, {"a": Decimal("12.50")}),
        (Shelf, {"price": "12.5"}, {"price": "12.50"}),
        (Decimal | str, Decimal("1.0"), Decimal("1.00")),
        (tuple[Shelf, Shelf], [{"price": "1.0"}, {}], [{"price": "1.00"}, {}]),
    ],
)
def test_equal_decimals_inside_json_have_one_text(annotation: Any, first: Any, second: Any) -> None:
    assert json_of(annotation, first) == json_of(annotation, second)


def test_decimal_of_a_numeric_column_keeps_its_digits() -> None:
    assert json_of(Decimal, "12.50") == json_of(Decimal | None, "12.50") == "12.50"

    class Goods(Record, key="id", view="goods"):
        id: int
        price: Decimal
        shelf: Shelf

    _, data = Goods.model_validate({"id": 1, "price": "12.50", "shelf": {"price": "1.50"}}).row()
    assert b'"price":"12.50"' in data
    assert b'"price":"1.5"' in data


@pytest.mark.parametrize("name", [float("nan"), float("-inf"), Decimal("NaN"), Decimal("Infinity")])
def test_member_named_not_a_number_rejects_the_item(name: Any) -> None:
    assert "which JSON cannot hold" in refusal(Any, {name: 1})


class Size(TypedDict):
    width: int
    labels: set[str]


def test_fields_of_typed_dicts_are_bounded() -> None:
    assert "a boolean is not a valid number" in refusal(Size, {"width": True, "labels": []})
    assert json_of(Size, {"width": 1, "labels": {"b", "c", "a"}})["labels"] == ["a", "b", "c"]


class Variant(BaseModel):
    at: dt.datetime | None = None
    number: int = 0
    price: Decimal = Decimal(0)
    extra: Any = None


@dataclass
class PlainVariant:
    at: dt.datetime | None = None
    number: int = 0
    price: Decimal = Decimal(0)
    extra: Any = None


@pydantic_dataclass
class CheckedVariant:
    at: dt.datetime | None = None
    number: int = 0
    price: Decimal = Decimal(0)
    extra: Any = None


VARIANTS = [Variant, PlainVariant, CheckedVariant]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    "values",
    [
        {"at": "20260128"},
        {"at": "2026-01-28T12:00"},
        {"at": "0001-01-01T00:00:00+03:00"},
        {"number": True},
        {"number": "1_000"},
        {"number": 2**80},
        {"price": "1_000"},
        {"price": "1e131072"},
        {"extra": {1: "a", "1": "b"}},
    ],
    ids=str,
)
def test_fields_of_inner_models_are_bounded(variant: Any, values: dict[str, Any]) -> None:
    assert refusal(variant, values)
    assert refusal(list[variant], [values])
    assert refusal(dict[str, variant | None], {"a": values})
    with_model_twice = create_model("Pair", first=(variant, ...), second=(variant, ...))
    assert refusal(with_model_twice, {"first": {}, "second": values})


@pytest.mark.parametrize("variant", VARIANTS)
def test_inner_model_has_its_own_bounds_outside_of_records(variant: Any) -> None:
    a_record_type(variant)
    assert TypeAdapter(variant).validate_python({"number": 2**80}).number == 2**80
    record = a_record_type(list[variant])
    made = record.model_validate({"id": 1, "value": [{"number": "7", "at": NOON}]})
    assert made.value[0] == variant(number=7, at=NOON)  # type: ignore[attr-defined]


class Branch(BaseModel):
    number: int = 0
    parts: list["Branch"] = []


class Cat(BaseModel):
    type: Literal["cat"]
    lives: int


class Dog(BaseModel):
    type: Literal["dog"]
    age: int


Animal = Annotated[Cat | Dog, Field(discriminator="type")]


def test_fields_of_recursive_models_and_of_tagged_unions_are_bounded() -> None:
    assert refusal(Branch, {"parts": [{"parts": [{"number": True}]}]})
    assert json_of(Branch, {"parts": [{"number": "2"}]})["parts"][0]["number"] == 2
    assert refusal(list[Animal], [{"type": "dog", "age": "1_0"}])
    assert json_of(Animal, {"type": "cat", "lives": 9}) == {"type": "cat", "lives": 9}


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")


def test_undeclared_members_of_an_inner_model_have_one_json() -> None:
    assert json_of(Open, {"tags": set("hgfedcba"), "n": Decimal("1.50")}) == {
        "tags": list("abcdefgh"),
        "n": "1.5",
    }


class Token(BaseModel, frozen=True):
    name: str
    price: Decimal = Decimal(0)
    extra: Any = None


@dataclass(frozen=True)
class PlainToken:
    name: str


@pytest.mark.parametrize("many", [set, frozenset])
def test_set_of_models_is_written_sorted(many: Any) -> None:
    tokens = [{"name": name} for name in "bca"]
    for token in (Token, PlainToken):
        names = [part["name"] for part in json_of(many[token], tokens)]
        assert names == ["a", "b", "c"]
        assert json_of(list[many[token]] | None, [tokens])
    assert "U+0000" in refusal(many[Token], [{"name": "\0"}])
    priced = [{"name": "a", "price": "1.50", "extra": frozenset("ba")}]
    assert json_of(many[Token], priced) == [{"name": "a", "price": "1.5", "extra": ["a", "b"]}]


class Tokens(BaseModel):
    tokens: set[Token]


def test_set_of_models_in_untyped_data_rejects_the_item() -> None:
    assert "a Tokens has no JSON" in refusal(Any, Tokens(tokens={Token(name="a")}))


def test_decimal_in_undeclared_data_becomes_the_text_of_its_digits() -> None:
    declared = make_record_type("books", ["isbn"])
    item = {"isbn": "1", "price": Decimal("7.50"), "pages": [Decimal("1E+2")], "weight": 7.5}
    [(_, _, data, _)] = validated(declared, item).rows
    assert json.loads(data or b"") == {
        "isbn": "1",
        "price": "7.5",
        "pages": ["100"],
        "weight": 7.5,
    }
