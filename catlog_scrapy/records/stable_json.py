"""Stable JSON: equal values get equal texts, by an order of sets and one notation of decimals."""

import dataclasses
import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Set
from decimal import Decimal
from typing import Any

from pydantic import BaseModel
from pydantic_core import from_json, to_json

from catlog_scrapy.records.numbers import number_text

PLAIN_TYPES = frozenset({str, int, float, bool, type(None)})


def stabilize(value: Any) -> Any:
    """Return *value* with a sorted list in place of each set, and one notation of decimals.

    Raises ValueError if two members of an object would have one name.
    """
    try:
        return _stabilize(value)
    except RecursionError:  # the serializer has a better error for a circular reference
        return value


def _stabilize(value: Any) -> Any:
    if type(value) in PLAIN_TYPES:
        return value
    if isinstance(value, Mapping):
        require_distinct_names(value)
        return {name: _stabilize(part) for name, part in value.items()}
    if isinstance(value, list | tuple | deque):
        return [_stabilize(part) for part in value]
    if isinstance(value, Set):
        return sorted(map(_stabilize, value), key=to_json)
    return _stabilize_object(value)


def _stabilize_object(value: Any) -> Any:
    if isinstance(value, Decimal):
        return number_text(value) if value.is_finite() else value
    is_dataclass = dataclasses.is_dataclass(value) and not isinstance(value, type)
    if isinstance(value, BaseModel) or (is_dataclass and hasattr(value, "__pydantic_serializer__")):
        try:
            return _stabilize(value.__pydantic_serializer__.to_python(value))
        except TypeError as error:  # a set of models would be a set of dicts
            raise ValueError(f"a {type(value).__name__} has no JSON: {error}") from error
    if is_dataclass:
        fields = dataclasses.fields(value)
        return {field.name: _stabilize(getattr(value, field.name)) for field in fields}
    return value


def require_distinct_names(value: Mapping[Any, Any]) -> None:
    """Raise ValueError if two members of *value* have one name in JSON, such as 1 and "1"."""
    if all(type(name) is str for name in value):
        return
    for name in value:
        if isinstance(name, float | Decimal) and not math.isfinite(name):
            raise ValueError(f"an object has the member {name}, which JSON cannot hold")
    names = Counter(next(iter(from_json(to_json({name: None})))) for name in value)
    for name, count in names.items():
        if count > 1:
            raise ValueError(f"{count} members of an object have the name {name!r}")


def require_distinct_names_inside(value: Any) -> None:
    """Raise ValueError if an object inside *value* has two members of one name in JSON."""
    if isinstance(value, Mapping):
        require_distinct_names(value)
        value = value.values()
    elif not isinstance(value, list | tuple | Set | deque):
        return
    for part in value:
        require_distinct_names_inside(part)


def sort_input(value: Any) -> Any:
    """Return a list in a stable order if *value* is a set, as pydantic takes sets for lists."""
    if type(value) is not list and isinstance(value, Set):
        return sort_by_json(value)
    return value


class StableSet(set[Any]):
    """Set that serializers of a record type iterate in a stable order."""

    def __iter__(self) -> Iterator[Any]:
        return iter(sort_by_json(super().__iter__()))


class StableFrozenSet(frozenset[Any]):
    """Frozen set that serializers of a record type iterate in a stable order."""

    def __iter__(self) -> Iterator[Any]:
        return iter(sort_by_json(super().__iter__()))


def iterate_stably(value: Any) -> Any:
    """Return a valid set as one with a stable order."""
    return StableSet(value) if isinstance(value, set) else StableFrozenSet(value)


def sort_by_json(values: Iterable[Any]) -> list[Any]:
    """Sort *values* by their JSON; values without JSON keep their order."""
    listed = list(values)
    try:
        return sorted(listed, key=lambda value: to_json(stabilize(value)))
    except ValueError:
        return listed
