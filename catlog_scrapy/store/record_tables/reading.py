"""Reads of single record tables by catlog itself."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from pydantic_core import to_jsonable_python
from sqlalchemy import Connection

from catlog_scrapy.records.hashing import record_id
from catlog_scrapy.records.key_texts import key_text
from catlog_scrapy.store.definitions import KindDefinition
from catlog_scrapy.store.sql import rows


class CurrentRecord(NamedTuple):
    """Record with its text key, the values of its key, and its fields as a load's JSON has them."""

    key: str
    key_values: list[Any]
    fields: dict[str, Any]


def current_records(
    connection: Connection,
    kind: KindDefinition,
    condition: str = "true",
    *,
    fields: Collection[str] = (),
    **values: Any,
) -> list[CurrentRecord]:
    """Return the current records of *kind* that meet the SQL *condition*, by key.

    Besides the key, they have all fields, or those in *fields*.
    """
    declared = {name for name, _ in kind.fields}
    wanted = {*kind.key, *fields} if fields else declared | {"data"}
    if not wanted <= declared:
        wanted.add("data")
    shown = ", ".join(f'"{name}"' for name, _ in kind.columns if name in wanted)
    found = rows(
        connection,
        f"SELECT {shown} FROM {kind.table} WHERE _removed_at IS NULL AND {condition}",
        **values,
    )
    return sorted((_record(kind, record) for record in found), key=lambda record: record.key)


def _record(kind: KindDefinition, columns: Mapping[str, Any]) -> CurrentRecord:
    key = key_text([columns[name] for name in kind.key], kind.key_types)
    fields = to_jsonable_python(dict(columns), timedelta_mode="float")
    if kind.foreign and "data" in fields:
        fields |= fields.pop("data") or {}
    return CurrentRecord(key, [fields[name] for name in kind.key], fields)


def record_ids(connection: Connection, kind: KindDefinition, values: Sequence[Any]) -> list[UUID]:
    """Return the ids that a record of *kind* with these key *values* has, one for each provider."""
    key = key_text(values, kind.key_types)
    found = rows(connection, "SELECT id FROM catlog.provider")
    return [record_id(provider["id"], key) for provider in found]
