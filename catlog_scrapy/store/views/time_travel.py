"""Time travel: views and records as of an instant."""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import Connection

from catlog_scrapy.store.definitions import KindDefinition
from catlog_scrapy.store.sql import rows, run
from catlog_scrapy.store.views.typed import (
    all_kinds,
    history_view,
)


def set_as_of(connection: Connection, instant: dt.datetime) -> None:
    """Let the views in `as_of` show what there was at *instant*, until the transaction ends."""
    run(
        connection,
        "SELECT set_config('catlog.as_of', CAST(CAST(:at AS timestamptz) AS text), true)",
        at=instant,
    )


def change_times(
    connection: Connection, kinds: Sequence[str], *, before: dt.datetime | None, limit: int
) -> list[dt.datetime]:
    """When any record of *kinds* changed, newest first: at most *limit* moments before *before*.

    Between two of them nothing did. Of versions that are pruned nothing is known.
    """
    found = rows(connection, CHANGE_TIMES, kinds=list(kinds), before=before, limit=limit)
    return [moment["at"] for moment in found]


# A revived record leaves no trace but where its state begins; a removed one, but where it ends.
CHANGE_TIMES = """
    SELECT at FROM (
        SELECT updated_at AS at FROM catlog.record WHERE kind = ANY(:kinds)
        UNION
        SELECT valid_from FROM catlog.record_version WHERE kind = ANY(:kinds)
        UNION
        SELECT valid_to FROM catlog.record_version WHERE kind = ANY(:kinds)) AS moments
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
    """All states of one record of *kind*, newest first: `line`, valid_from, valid_to, change.

    `line` has *fields* as JSON, without those that a history has not. *key* has the values of the
    kind's key fields, those of the view. Only states that began before *before*, at most *limit*.
    Two providers may have records with one key. Raises DataError for a value that is none of its
    field's type; KeyError for a kind that is not there, or a field of its key that is missing.
    """
    definition = all_kinds(connection)[kind]
    values = [key[name] for name in definition.key]
    written = stored_key(definition, values)
    asked = {
        f"value_{number}": value if value is None else str(value)
        for number, value in enumerate(values)
    }
    types = dict(definition.fields)
    same = " AND ".join(
        f'"{name}" = CAST(:value_{number} AS {types[name]})'
        for number, name in enumerate(definition.key)
    )
    shown = [name for name in fields if name in types or (definition.foreign and name == "data")]
    listed = ", ".join(f'states."{name}"' for name in shown)
    found: list[Mapping[str, Any]] = []
    # By the index; and where the key is written in another way, by the fields.
    for narrowed in (BY_KEY, "") if written else ("",):
        found = rows(
            connection,
            f"""SELECT (SELECT row_to_json(line)::text FROM (SELECT {listed}) AS line) AS line,
                    valid_from, valid_to, change
                FROM ({history_view(definition, narrowed)}) AS states
                WHERE {same} AND valid_from < coalesce(CAST(:before AS timestamptz), 'infinity')
                ORDER BY valid_from DESC, valid_to DESC NULLS FIRST LIMIT :limit""",
            key=written,
            before=before,
            limit=limit,
            **asked,
        )
        if found:
            break
    return found


BY_KEY = " AND key = :key AND provider_id = ANY(ARRAY(SELECT provider.id FROM catlog.provider))"


def stored_key(kind: KindDefinition, values: Sequence[Any]) -> str | None:
    """The key of a record of *kind* as it is stored, by its *values*; None where nobody can say.

    A record may have another one all the same: what its type writes as text is its own affair.
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


# Types of key fields that are written in one way alone: in a URL, in JSON, as text.
PLAIN_KEY_TYPES = {"text": str, "bigint": int, "uuid": str, "date": str}
