"""What SQL readers see: a typed view for each kind, one of its history, and the project's own.

Which views there are to be, and what is refused before anything changes. `remaking` makes them.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection

from catlog_scrapy.store.schemes import KindDefinition, ProviderDefinition
from catlog_scrapy.store.transactions import rows, run

# The comment by which our views are known, with a hash of what they were made from and, for one of
# a project's own, the project.
MARK = "catlog "
HISTORY = "_history"
# PostgreSQL cuts longer identifiers, and the history's name has to fit.
MAX_KIND_BYTES = 63 - len(HISTORY)


@dataclass(frozen=True)
class ViewPlan:
    """The SELECTs and marks of all views by name, and what is to be done: `changed` (made new or

    anew; kinds before the project's own) and `gone`, both by name. `own` are the project's own;
    those of other projects stay as they are.
    """

    wanted: dict[str, str]
    marks: dict[str, str]
    own: frozenset[str]
    existing: frozenset[str]
    changed: tuple[str, ...]
    gone: tuple[str, ...]

    def done(self) -> list[tuple[str, str]]:
        """The sign and name of each change."""
        return [
            *(("~" if name in self.existing else "+", name) for name in self.changed),
            *(("-", name) for name in self.gone),
        ]


def plan_views(
    connection: Connection,
    providers: Iterable[ProviderDefinition],
    own: Mapping[str, str],
    project: str,
) -> ViewPlan:
    """What is to be done for the kinds, stored and declared, and the *project*'s *own* views."""
    wanted = {**_views_of(_kinds(connection, providers)), **own}
    marks = {
        name: f"{MARK}{_hash_of(sql)}" + (f" {project}" if name in own else "")
        for name, sql in wanted.items()
    }
    existing = _existing(connection)
    changed = [name for name, mark in marks.items() if existing.get(name, ("",))[0] != mark]
    others = {
        name: found
        for name, found in existing.items()
        if name not in wanted and _project_of(found[0]) not in ("", project)
    }
    return ViewPlan(
        wanted=wanted | {name: sql for name, (_, sql) in others.items()},
        marks=marks | {name: mark for name, (mark, _) in others.items()},
        own=frozenset(own),
        existing=frozenset(existing),
        changed=tuple(sorted(changed, key=lambda name: (name in own, name))),
        gone=tuple(sorted(set(existing) - set(wanted) - set(others))),
    )


def _project_of(mark: str) -> str:
    return mark.removeprefix(MARK).partition(" ")[2]


def check_views(
    connection: Connection,
    providers: Iterable[ProviderDefinition],
    own: Mapping[str, str],
    project: str,
) -> list[str]:
    """The lines of what is refused: names in `public` that are somebody else's, or two kinds'."""
    others = {
        name: _project_of(mark)
        for name, (mark, _) in _existing(connection).items()
        if _project_of(mark) not in ("", project)
    }
    kinds = _kinds(connection, providers)
    views = _views_of(kinds)
    taken = rows(
        connection,
        """SELECT c.relname AS name FROM pg_class c
           JOIN pg_namespace n ON n.oid = c.relnamespace
           WHERE n.nspname = 'public' AND c.relname = ANY(CAST(:names AS text[]))
             AND NOT coalesce(obj_description(c.oid, 'pg_class') LIKE :mark, false)
           UNION
           SELECT t.typname FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
           WHERE n.nspname = 'public' AND t.typrelid = 0
             AND t.typname = ANY(CAST(:names AS text[]))
           ORDER BY 1""",
        names=[*own, *views],
        mark=MARK + "%",
    )
    return [
        *(
            f'the project "{others[name]}" has a view "{name}" already; give yours another name'
            for name in sorted({*own, *views} & set(others))
        ),
        *(
            f'public."{found["name"]}" exists and is no view of catlog;'
            " rename it, or the record type's view or the file in views/ so named"
            for found in taken
        ),
        # Of what is declared now, checking has said so already, with its place.
        *(
            f'views/{name}.sql: a former kind has the view "{name}"; rename the file'
            for name in sorted(set(own) & set(views))
        ),
        *(
            f'the history of the kind "{name}" is the view "{name + HISTORY}", which is a kind as'
            " well, if a former one; give the newer one another view"
            for name in sorted(kinds)
            if name + HISTORY in kinds
        ),
    ]


def make_partitions(connection: Connection) -> None:
    """A table for each kind that has none.

    Attached, not created as a partition: the lock on the parent then lets loads go on.
    """
    missing = rows(
        connection,
        """SELECT DISTINCT k.name FROM catlog.kind k WHERE NOT EXISTS (
               SELECT 1 FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
               WHERE i.inhparent = 'catlog.record'::regclass
                 AND pg_get_expr(c.relpartbound, c.oid) = format('FOR VALUES IN (%L)', k.name))
           ORDER BY 1""",
    )
    for kind in missing:
        table = f'catlog."record_{kind["name"]}"'
        run(connection, f"CREATE TABLE {table} (LIKE catlog.record INCLUDING ALL)")
        run(
            connection,
            f"""ALTER TABLE catlog.record
                ATTACH PARTITION {table} FOR VALUES IN ('{kind["name"]}')""",
        )


def _hash_of(sql: str) -> str:
    return hashlib.sha256(sql.encode()).hexdigest()[:16]


def _existing(connection: Connection) -> dict[str, tuple[str, str]]:
    """Our views: their marks and SELECTs."""
    found = rows(
        connection,
        """SELECT c.relname AS name, obj_description(c.oid, 'pg_class') AS mark,
               rtrim(pg_get_viewdef(c.oid), ';') AS sql FROM pg_class c
           JOIN pg_namespace n ON n.oid = c.relnamespace
           WHERE n.nspname = 'public' AND c.relkind = 'v'
             AND obj_description(c.oid, 'pg_class') LIKE :mark""",
        mark=MARK + "%",
    )
    return {view["name"]: (view["mark"], view["sql"]) for view in found}


def _kinds(
    connection: Connection, providers: Iterable[ProviderDefinition]
) -> dict[str, KindDefinition]:
    """All kinds there are or will be, by name."""
    kinds = {
        found["name"]: KindDefinition(
            found["name"],
            tuple(found["key"]),
            tuple((part["name"], part["type"]) for part in found["fields"]),
            found["foreign_type"],
        )
        # The newest definition; one of a scheme that is not retired before any other.
        for found in rows(
            connection,
            """SELECT DISTINCT ON (k.name) k.* FROM catlog.kind k
               JOIN catlog.catalog_scheme_operation o ON o.id = k.operation_id
               JOIN catlog.catalog_scheme s ON s.id = o.scheme_id
               ORDER BY k.name, s.retired_at DESC NULLS FIRST, s.version DESC""",
        )
    }
    for provider in providers:
        for scheme in provider.schemes:
            for operation in scheme.operations:
                kinds.update({kind.name: kind for kind in operation.kinds})
    return kinds


def _views_of(kinds: Mapping[str, KindDefinition]) -> dict[str, str]:
    """The SELECTs of *kinds*, by the name of their view."""
    views: dict[str, str] = {}
    for kind in kinds.values():
        views[kind.name] = current_view(kind)
        views[kind.name + HISTORY] = history_view(kind)
    return views


def current_view(kind: KindDefinition) -> str:
    """The SELECT of the current records of *kind*.

    The UNION with nothing makes PostgreSQL take the columns out of `data` as it reads a row;
    otherwise it carries whole `data` through sorts and joins and takes them out behind those
    (measured: a GROUP BY over a million records takes half the time).
    """
    types = [*kind.fields, *([("data", "jsonb")] if kind.foreign else [])]
    names = ", ".join(f'"{name}"' for name, _ in types)
    nothing = ", ".join(f"NULL::{type_}" for _, type_ in types)
    # No field's name begins with an underscore.
    return f"""SELECT {names}, created_at, updated_at FROM (
            SELECT {_columns(kind)}, created_at, updated_at,
                kind AS _kind, removed_at AS _removed_at FROM catlog.record
            UNION ALL
            SELECT {nothing}, NULL::timestamptz, NULL::timestamptz, NULL, NULL::timestamptz
            WHERE false
        ) AS records WHERE _kind = '{kind.name}' AND _removed_at IS NULL"""


def history_view(kind: KindDefinition) -> str:
    """The SELECT of all states of the records of *kind*; `change` says what ended one."""
    return f"""SELECT {_columns(kind)}, valid_from, valid_to, change
        FROM catlog.record_version WHERE kind = '{kind.name}'
        UNION ALL
        SELECT {_columns(kind)}, updated_at, NULL, NULL
        FROM catlog.record WHERE kind = '{kind.name}' AND removed_at IS NULL"""


def _columns(kind: KindDefinition) -> str:
    columns = [f'{_expression(name, type_)} AS "{name}"' for name, type_ in kind.fields]
    return ", ".join([*columns, *(["data"] if kind.foreign else [])])


def _expression(name: str, sql_type: str) -> str:
    if sql_type == "text":
        return f"data ->> '{name}'"
    if sql_type == "jsonb":
        return f"nullif(data -> '{name}', 'null'::jsonb)"
    if sql_type == "interval":
        return f"make_interval(secs => (data ->> '{name}')::double precision)"
    return f"(data ->> '{name}')::{sql_type}"
