"""What readers need of change: what a view reads, when that changed, and how it was before."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection

from catlog_scrapy.store.schemes import KindDefinition
from catlog_scrapy.store.sql import row, rows, run
from catlog_scrapy.store.views.typed import (
    HISTORY,
    MARK,
    PAST,
    UNREADABLE,
    history_view,
    kinds_of_views,
)

# What stands for the kind where all views are meant.
VIEWS = ""


@dataclass(frozen=True)
class Sources:
    """What a view reads, directly or through other views, each sorted.

    `others` are relations that are neither kinds' nor views of ours, as `schema.name`: nobody
    knows when they change. `drifts` says that its rows may change by themselves: it reads the
    clock, a setting or chance, or calls a function of somebody's that may read anything.
    `has_past` is false where its twin in `as_of` cannot be read, or is not there. `reads_history`
    says that it reads what is pruned, of which no stamp tells.
    """

    kinds: tuple[str, ...]
    others: tuple[str, ...]
    drifts: bool
    has_past: bool
    reads_history: bool = False

    @property
    def steady(self) -> tuple[str, ...] | None:
        """Its kinds, where it changes with these alone; else None."""
        return None if self.others or self.drifts or self.reads_history else self.kinds


def sources_of(connection: Connection, view: str) -> Sources:
    """What the view `public.view` reads. A view that is not there reads nothing.

    A history counts as its kind.
    """
    kinds = set(kinds_of_views(connection))
    histories = {kind + HISTORY: kind for kind in kinds}
    read: set[str] = set()
    others: set[str] = set()
    drifts = reads_history = False
    # Below a kind's view are our own tables, and casts that are stable by name only.
    pending, seen = [("public", view)], set[tuple[str, str]]()
    while pending:
        schema, name = pending.pop()
        if (schema, name) in seen:
            continue
        seen.add((schema, name))
        if schema == "public" and (name in kinds or name in histories):
            read.add(histories.get(name, name))
            reads_history = reads_history or name in histories
            continue
        found = row(connection, RULE, schema=schema, name=name, mark=MARK + "%")
        if found is None:
            continue
        if not found["ours"]:
            others.add(f"{schema}.{name}")
        drifts = drifts or bool(found["drifts"])
        pending += [(part["schema"], part["name"]) for part in found["reads"]]
    has_past = _has_past(connection, view)
    return Sources(tuple(sorted(read)), tuple(sorted(others)), drifts, has_past, reads_history)


# Of one relation: whether it is a view of ours, what it reads, and whether it calls what is never
# the same. The tree says that better than the text, in which a string may look like a call. A
# function that is not built in may read any table.
RULE = r"""
    SELECT c.relkind = 'v' AND n.nspname = 'public'
            AND coalesce(obj_description(c.oid, 'pg_class') LIKE :mark, false) AS ours,
        c.relkind = 'v' AND (
            r.ev_action::text LIKE '%{SQLVALUEFUNCTION%' OR EXISTS (
                SELECT 1
                FROM regexp_matches(r.ev_action::text, ':(func|opfunc)id (\d+)', 'g') AS called
                JOIN pg_proc p ON p.oid = called[2]::oid
                WHERE p.provolatile = 'v' OR p.provolatile = 's' AND (
                    p.oid >= 16384 OR p.proname IN ('now', 'transaction_timestamp',
                        'statement_timestamp', 'current_setting', 'age'))
            )) AS drifts,
        coalesce((
            SELECT jsonb_agg(DISTINCT
                jsonb_build_object('schema', m.nspname, 'name', t.relname))
            FROM pg_depend d JOIN pg_class t ON t.oid = d.refobjid
            JOIN pg_namespace m ON m.oid = t.relnamespace
            WHERE c.relkind IN ('v', 'm') AND d.objid = r.oid AND d.classid = 'pg_rewrite'::regclass
              AND d.refclassid = 'pg_class'::regclass AND t.oid <> c.oid), '[]') AS reads
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_rewrite r ON r.ev_class = c.oid AND r.rulename = '_RETURN'
    WHERE n.nspname = :schema AND c.relname = :name"""


def _has_past(connection: Connection, view: str) -> bool:
    found = row(
        connection,
        """SELECT obj_description(c.oid, 'pg_class') AS mark FROM pg_class c
           WHERE c.relnamespace = to_regnamespace(:past) AND c.relname = :view""",
        past=PAST,
        view=view,
    )
    return found is not None and not str(found["mark"]).endswith(UNREADABLE)


def stamp_of(connection: Connection, kinds: Sequence[str]) -> str:
    """A short hash of the last publishes that changed any provider's records of *kinds*.

    And behind it when any view was made anew. It is another one as soon as readers see anything
    else.
    """
    found = row(connection, STAMP, kinds=list(kinds))
    return str(found["stamp"]) if found else ""


def views_of(stamp: str) -> str:
    """When any view was last made anew, as a stamp has it."""
    return stamp.partition(" ")[2]


STAMP = f"""
    SELECT concat_ws(' ',
        left(md5(coalesce(string_agg(
            concat_ws(' ', provider_id, kind, catalog_id, extract(epoch FROM published_at)), ','
            ORDER BY provider_id, kind), '')), 16),
        extract(epoch FROM max(published_at) FILTER (WHERE kind = '{VIEWS}'))) AS stamp
    FROM catlog.publication WHERE kind = ANY(:kinds) OR kind = '{VIEWS}'"""


def stamp_views(connection: Connection) -> None:
    """Tell readers that a view is another one now, or gone."""
    run(
        connection,
        """INSERT INTO catlog.publication (provider_id, kind, published_at)
           VALUES (:nobody, :views, clock_timestamp())
           ON CONFLICT (provider_id, kind) DO UPDATE SET published_at = excluded.published_at""",
        nobody=UUID(int=0),
        views=VIEWS,
    )


def at(connection: Connection, instant: dt.datetime) -> None:
    """Let the views in `as_of` show what there was at *instant*, until the transaction ends."""
    run(
        connection,
        "SELECT set_config('catlog.as_of', CAST(CAST(:at AS timestamptz) AS text), true)",
        at=instant,
    )


def moments(
    connection: Connection, kinds: Sequence[str], *, before: dt.datetime | None, limit: int
) -> list[dt.datetime]:
    """When any record of *kinds* changed, newest first: at most *limit* moments before *before*.

    Between two of them nothing did. Of versions that are pruned nothing is known.
    """
    found = rows(connection, MOMENTS, kinds=list(kinds), before=before, limit=limit)
    return [moment["at"] for moment in found]


# A revived record leaves no trace but where its state begins; a removed one, but where it ends.
MOMENTS = """
    SELECT at FROM (
        SELECT updated_at AS at FROM catlog.record WHERE kind = ANY(:kinds)
        UNION
        SELECT valid_from FROM catlog.record_version WHERE kind = ANY(:kinds)
        UNION
        SELECT valid_to FROM catlog.record_version WHERE kind = ANY(:kinds)) AS moments
    WHERE at < coalesce(CAST(:before AS timestamptz), 'infinity')
    ORDER BY at DESC LIMIT :limit"""


def states_of(
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
    definition = kinds_of_views(connection)[kind]
    values = [key[name] for name in definition.key]
    written = written_key(definition, values)
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


def written_key(kind: KindDefinition, values: Sequence[Any]) -> str | None:
    """The key of a record of *kind* as it is stored, by its *values*; None where nobody can say.

    A record may have another one all the same: what its type writes as text is its own affair.
    """
    types = dict(kind.fields)
    if any(types[name] not in PLAIN for name in kind.key):
        return None
    if len(values) == 1:
        return str(values[0])
    try:
        plain = [PLAIN[types[name]](value) for name, value in zip(kind.key, values, strict=True)]
        return orjson.dumps(plain).decode()
    except (ValueError, TypeError):  # a lone surrogate, or an integer of more than 64 bits
        return None


# Types of key fields that are written in one way alone: in a URL, in JSON, as text.
PLAIN = {"text": str, "bigint": int, "uuid": str, "date": str}
