"""Time travel: views and records as of an instant."""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import Connection

from catlog_scrapy.store.definitions import KindDefinition
from catlog_scrapy.store.schemes import all_kinds
from catlog_scrapy.store.sql import rows, run
from catlog_scrapy.store.views.typed import history_view


def set_as_of(connection: Connection, instant: dt.datetime) -> None:
    """Set the instant that the as-of views show, until the transaction ends."""
    run(
        connection,
        "SELECT set_config('catlog.as_of', CAST(CAST(:at AS timestamptz) AS text), true)",
        at=instant,
    )


def change_times(
    connection: Connection, kinds: Sequence[str], *, before: dt.datetime | None, limit: int
) -> list[dt.datetime]:
    """Return the last *limit* times before *before* when records of *kinds* changed.

    Newest first, without changes between two of them. Pruned versions have left no time.
    """
    found = rows(connection, CHANGE_TIMES, kinds=list(kinds), before=before, limit=limit)
    return [change["at"] for change in found]


# Only the start of its state shows that a record was restored; only the end of its state shows
# that a record was removed.
CHANGE_TIMES = """
    SELECT at FROM (
        SELECT updated_at AS at FROM catlog.record WHERE kind = ANY(:kinds)
        UNION
        SELECT valid_from FROM catlog.record_version WHERE kind = ANY(:kinds)
        UNION
        SELECT valid_to FROM catlog.record_version WHERE kind = ANY(:kinds)) AS changes
    WHERE at < coalesce(CAST(:before AS timestamptz), 'infinity')
    ORDER BY at DESC LIMIT :limit"""


def record_states(
    connection: Connection,
    kind: str,
    key: Mapping[str, Any],
    fields: Sequence[str],
    *,
    before: dt.datetime | None = None,
    limit: int = 100,
) -> list[Mapping[str, Any]]:
    """Return the states of one record of *kind*: line, valid_from, valid_to, change.

    Newest first, at most *limit* states that began before *before*. `line` holds *fields* as JSON,
    without fields that a history view lacks. *key* holds the values of the kind's key fields, as
    the view shows them; records of two providers may share a key. Raises DataError for a value
    that does not fit its field's type, KeyError for an unknown kind or a missing key field.
    """
    definition = all_kinds(connection)[kind]
    values = [key[name] for name in definition.key]
    written = stored_key(definition, values)
    parameters = {
        f"value_{number}": value if value is None else str(value)
        for number, value in enumerate(values)
    }
    types = dict(definition.fields)
    has_key = " AND ".join(
        f'"{name}" = CAST(:value_{number} AS {types[name]})'
        for number, name in enumerate(definition.key)
    )
    shown = [name for name in fields if name in types or (definition.foreign and name == "data")]
    columns = ", ".join(f'states."{name}"' for name in shown)
    found: list[Mapping[str, Any]] = []
    # The index finds the key; a key that was stored in another notation is found by its fields.
    for condition in (HAS_KEY, "") if written else ("",):
        found = rows(
            connection,
            f"""SELECT (SELECT row_to_json(line)::text FROM (SELECT {columns}) AS line) AS line,
                    valid_from, valid_to, change
                FROM ({history_view(definition, condition)}) AS states
                WHERE {has_key} AND valid_from < coalesce(CAST(:before AS timestamptz), 'infinity')
                ORDER BY valid_from DESC, valid_to DESC NULLS FIRST LIMIT :limit""",
            key=written,
            before=before,
            limit=limit,
            **parameters,
        )
        if found:
            break
    return found


HAS_KEY = " AND key = :key AND provider_id = ANY(ARRAY(SELECT provider.id FROM catlog.provider))"


def stored_key(kind: KindDefinition, values: Sequence[Any]) -> str | None:
    """Return the stored key of a record of *kind*, or None if its notation is not known.

    A record type may write its key values in another way, so the stored key may still differ.
    """
    types = dict(kind.fields)
    if any(types[name] not in PLAIN_KEY_TYPES for name in kind.key):
        return None
    if len(values) == 1:
        return str(values[0])
    try:
        plain = [
            PLAIN_KEY_TYPES[types[name]](value)
            for name, value in zip(kind.key, values, strict=True)
        ]
        return orjson.dumps(plain).decode()
    except (ValueError, TypeError):  # a lone surrogate, or an integer of more than 64 bits
        return None


# Types of key fields with one notation in URLs, JSON and text.
PLAIN_KEY_TYPES = {"text": str, "bigint": int, "uuid": str, "date": str}
