"""Time travel: views and records as of an instant."""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from catlog_scrapy.store.definitions import KindDefinition
from catlog_scrapy.store.record_tables.reading import record_ids
from catlog_scrapy.store.schemes import all_kinds
from catlog_scrapy.store.sql import rows, run
from catlog_scrapy.store.views.typed import PROVIDER_COLUMN, history_view


def set_as_of(connection: Connection, instant: dt.datetime) -> None:
    """Set the instant that the as-of views show, until the transaction ends."""
    run(connection, SET_AS_OF, at=instant)


SET_AS_OF = "SELECT set_config('catlog.as_of', CAST(CAST(:at AS timestamptz) AS text), true)"


def change_times(
    connection: Connection, kinds: Sequence[str], *, before: dt.datetime | None, limit: int
) -> list[dt.datetime]:
    """Return the last *limit* times before *before* when records of *kinds* changed.

    Newest first, without changes between two of them. Pruned versions have left no time.
    """
    known = all_kinds(connection)
    changes = "\n UNION ".join(_changes(known[kind]) for kind in kinds)
    found = rows(
        connection,
        f"""SELECT at FROM ({changes}) AS changes
            WHERE at < coalesce(CAST(:before AS timestamptz), 'infinity')
            ORDER BY at DESC LIMIT :limit""",
        before=before,
        limit=limit,
    )
    return [change["at"] for change in found]


def _changes(kind: KindDefinition) -> str:
    """Return the SELECT of the times when records of *kind* changed.

    Only the start of its state shows that a record was restored; only the end of its state shows
    that a record was removed.
    """
    return f"""SELECT _updated_at AS at FROM {kind.table}
        UNION SELECT _valid_from FROM {kind.versions_table}
        UNION SELECT _valid_to FROM {kind.versions_table}"""


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
    parameters = {
        f"value_{number}": value if value is None else str(value)
        for number, value in enumerate(values)
    }
    types = dict(definition.fields)
    has_key = " AND ".join(
        f'"{name}" = CAST(:value_{number} AS {types[name]})'
        for number, name in enumerate(definition.key)
    )
    shown = [name for name in fields if name in {*dict(definition.columns), PROVIDER_COLUMN}]
    columns = ", ".join(f'states."{name}"' for name in shown)
    found: list[Mapping[str, Any]] = []
    # The primary key finds the id; a key in another notation is found by its fields.
    for condition in (HAS_ID, ""):
        found = rows(
            connection,
            f"""SELECT (SELECT row_to_json(line)::text FROM (SELECT {columns}) AS line) AS line,
                    valid_from, valid_to, change
                FROM ({history_view(definition, condition)}) AS states
                WHERE {has_key} AND valid_from < coalesce(CAST(:before AS timestamptz), 'infinity')
                ORDER BY valid_from DESC, valid_to DESC NULLS FIRST LIMIT :limit""",
            ids=record_ids(connection, definition, values),
            before=before,
            limit=limit,
            **parameters,
        )
        if found:
            break
    return found


HAS_ID = " AND s._id = ANY(CAST(:ids AS uuid[]))"
