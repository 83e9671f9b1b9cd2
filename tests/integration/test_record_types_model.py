"""Record types that change between loads: typed tables against a small model."""

import itertools
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from catlog_scrapy.exceptions import DeclarationError
from tests.integration.test_apply import Shop
from tests.support.factories import load_records, sql

TYPES = {"text": "str", "bigint": "int", "numeric": "Decimal", "boolean": "bool"}
VALUES: dict[str, list[Any]] = {
    "text": ["1", "007", "2.50", "true", "x"],
    "bigint": [0, 1, 12],
    "numeric": [Decimal("1"), Decimal("2.50"), Decimal("3.00")],
    "boolean": [True, False],
}
NUMBER = re.compile(r"\d+(\.\d+)?")
FIELDS = ("a", "b", "c")
SCHEME = """
[[scheme]]
name = "goods"
version = {version}
[[scheme.operation]]
name = "goods"
min_results = 0
tolerate = {{ removed = 1000 }}
"""


class Refused(Exception):
    """A value does not convert. Raised by `convert`."""


def convert(value: Any, was: str, now: str) -> Any:
    """Return *value* with another type, as PostgreSQL converts it without losses."""
    if value is None or was == now:
        return value
    if now == "text":
        return shown(value)
    reads = {
        ("text", "bigint"): lambda: int(value) if re.fullmatch(r"\d+", value) else None,
        ("text", "numeric"): lambda: Decimal(value) if NUMBER.fullmatch(value) else None,
        ("text", "boolean"): lambda: True if value in ("1", "true") else None,
        ("bigint", "numeric"): lambda: Decimal(value),
        ("numeric", "bigint"): lambda: int(value) if value == int(value) else None,
    }
    found = reads.get((was, now), lambda: None)()
    if found is None:
        raise Refused
    return found


Row = dict[str, Any]


@dataclass
class Model:
    """Stored columns with their types, declared fields, and states of records by key."""

    stored: dict[str, str] = field(default_factory=dict)
    declared: dict[str, str] = field(default_factory=dict)
    records: dict[str, Row] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    versions: list[tuple[str, Row]] = field(default_factory=list)

    def change(self, fields: Mapping[str, str]) -> bool:
        """Declare other fields; return False, without changes, if a value does not convert."""
        try:
            converted = {id(row): self._converted(row, fields) for row in self._rows()}
        except Refused:
            return False
        for row in self._rows():
            row.update(converted[id(row)])
        self.stored |= fields
        self.declared = dict(fields)
        return True

    def _rows(self) -> Iterator[Row]:
        yield from self.records.values()
        yield from (row for _, row in self.versions)

    def _converted(self, row: Row, fields: Mapping[str, str]) -> Row:
        return {
            name: convert(row.get(name), self.stored.get(name, type_), type_)
            for name, type_ in fields.items()
        }

    def load(self, rows: Mapping[str, Row]) -> None:
        """Publish a full snapshot."""
        for key in self.records.keys() - rows.keys() - self.removed:
            self.versions.append((key, dict(self.records[key])))
            self.removed.add(key)
        for key, values in rows.items():
            was_removed = key in self.removed
            former = self.records.get(key)
            changed = former is None or any(
                former.get(name) != values.get(name) for name in self.declared
            )
            if former is not None and changed and not was_removed:
                self.versions.append((key, dict(former)))
            if changed or was_removed:
                self.records[key] = dict(values)
            self.removed.discard(key)

    @property
    def current(self) -> list[list[str]]:
        return sorted(
            self._shown(key, row) for key, row in self.records.items() if key not in self.removed
        )

    @property
    def history(self) -> list[list[str]]:
        former = [self._shown(key, row) for key, row in self.versions]
        return sorted(former + self.current)

    def _shown(self, key: str, row: Row) -> list[str]:
        return [key, *(shown(row.get(name)) for name in self.declared)]


def shown(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


field_types = st.dictionaries(st.sampled_from(FIELDS), st.sampled_from(sorted(TYPES)))
# Numbers of values, which each load turns into values of the present types.
loads = st.dictionaries(st.sampled_from("xyz"), st.lists(st.integers(0, 5), min_size=3, max_size=3))
steps = st.lists(st.tuples(field_types, st.lists(loads, max_size=2)), min_size=2, max_size=5)


@settings(
    max_examples=25,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps)
def test_typed_tables_follow_their_record_types(
    engine: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: list[tuple[dict[str, str], list[dict[str, list[int]]]]],
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    shop = given_an_empty_shop(engine, tmp_path)
    model = Model()
    version = 1
    for fields, snapshots in changes:
        version += 1
        shop.declare(SCHEME.format(version=version))
        shop.given_fields(*(f"{name}: {TYPES[t]} | None = None" for name, t in fields.items()))
        accepted = model.change(fields)
        if accepted:
            shop.apply()
        else:
            with pytest.raises(DeclarationError, match="give the field another name"):
                shop.apply()
            version -= 1
        require_equal(engine, model)
        for snapshot in snapshots:
            rows = {key: values_of(model.declared, chosen) for key, chosen in snapshot.items()}
            records = [{"id": key, **as_json(row)} for key, row in rows.items()]
            assert load_records(engine, records)["state"] == "loaded"
            model.load(rows)
            require_equal(engine, model)
    if accepted:
        assert shop.apply(check=True) == []


_shops = itertools.count(1)


def given_an_empty_shop(engine: Engine, folder: Path) -> Shop:
    sql(
        engine,
        """TRUNCATE catlog.provider CASCADE; TRUNCATE catlog.kind, catlog.publication;
           DROP SCHEMA records CASCADE; CREATE SCHEMA records;
           DROP SCHEMA as_of CASCADE; CREATE SCHEMA as_of""",
    )
    own = folder / str(next(_shops))
    own.mkdir()
    sys.path.insert(0, str(own))
    shop = Shop(own, engine)
    shop.declare(SCHEME.format(version=1))
    shop.given_fields()
    shop.apply()
    return shop


def values_of(types: Mapping[str, str], chosen: list[int]) -> Row:
    """Return a value for each declared field; a number beyond the values is None."""
    row: Row = {}
    for name, number in zip(FIELDS, chosen, strict=True):
        if name in types:
            values = VALUES[types[name]]
            row[name] = values[number] if number < len(values) else None
    return row


def as_json(row: Row) -> Row:
    return {name: str(v) if isinstance(v, Decimal) else v for name, v in row.items()}


def require_equal(engine: Engine, model: Model) -> None:
    """Compare the present view and the history with the model."""
    names = "".join(f", coalesce({name}::text, 'null') AS {name}" for name in model.declared)
    for view, expected in (("goods", model.current), ("goods_history", model.history)):
        found = sql(engine, f"SELECT id{names} FROM public.{view}")
        assert sorted(list(row.values()) for row in found) == expected
