"""What readers need of change: what a view reads, when that changed, and how it was before."""

from dataclasses import dataclass

from sqlalchemy import Connection

from catlog_scrapy.store.sql import row
from catlog_scrapy.store.views.typed import (
    AS_OF_SCHEMA,
    HISTORY_SUFFIX,
    UNREADABLE_SUFFIX,
    VIEW_COMMENT,
    all_kinds,
)

# What stands for the kind where all views are meant.
ALL_VIEWS = ""


@dataclass(frozen=True)
class ViewSources:
    """What a view reads, directly or through other views, each sorted.

    `others` are relations that are neither kinds' nor views of ours, as `schema.name`: nobody
    knows when they change. `is_volatile` says that its rows may change by themselves: it reads the
    clock, a setting or chance, or calls a function of somebody's that may read anything.
    `has_as_of_view` is false where its as-of view cannot be read, or is not there. `reads_history`
    says that it reads what is pruned, of which no stamp tells.
    """

    kinds: tuple[str, ...]
    others: tuple[str, ...]
    is_volatile: bool
    has_as_of_view: bool
    reads_history: bool = False

    @property
    def cacheable_kinds(self) -> tuple[str, ...] | None:
        """Its kinds, where it changes with these alone; else None."""
        return None if self.others or self.is_volatile or self.reads_history else self.kinds


def view_sources(connection: Connection, view: str) -> ViewSources:
    """What the view `public.view` reads. A view that is not there reads nothing.

    A history counts as its kind.
    """
    kinds = set(all_kinds(connection))
    histories = {kind + HISTORY_SUFFIX: kind for kind in kinds}
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
        found = row(connection, RELATION_SOURCES, schema=schema, name=name, mark=VIEW_COMMENT + "%")
        if found is None:
            continue
        if not found["ours"]:
            others.add(f"{schema}.{name}")
        drifts = drifts or bool(found["drifts"])
        pending += [(part["schema"], part["name"]) for part in found["reads"]]
    has_as_of_view = _has_past(connection, view)
    return ViewSources(
        tuple(sorted(read)), tuple(sorted(others)), drifts, has_as_of_view, reads_history
    )


# Of one relation: whether it is a view of ours, what it reads, and whether it calls what is never
# the same. The tree says that better than the text, in which a string may look like a call. A
# function that is not built in may read any table.
RELATION_SOURCES = r"""
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
        past=AS_OF_SCHEMA,
        view=view,
    )
    return found is not None and not str(found["mark"]).endswith(UNREADABLE_SUFFIX)
