"""What SQL readers see: a typed view for each kind, one of its history, and the project's own.

Each but a history has a twin in the schema `as_of`, which shows what it showed at a time. Which
views there are to be, and what is refused before anything changes. `remaking` makes them.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection

from catlog_scrapy.store.definitions import KindDefinition, ProviderDefinition
from catlog_scrapy.store.sql import rows, run

# The comment by which our views are known, with a hash of what they were made from and, for one of
# a project's own, the project.
VIEW_COMMENT = "catlog "
HISTORY_SUFFIX = "_history"
# PostgreSQL cuts longer identifiers, and the history's name has to fit.
MAX_KIND_BYTES = 63 - len(HISTORY_SUFFIX)
# The schema of the twins.
AS_OF_SCHEMA = "as_of"
# What a twin's mark ends with if it only says that it cannot be read.
UNREADABLE_SUFFIX = "\nIt cannot be read as of a time."
# Part of the hash of the project's own views: raised when their twins are made in another way.
AS_OF_FORMAT = "\n1"

# The columns of the records' index, as SELECTs for pages have them. No field's name begins so.
INDEX_COLUMNS = {"_provider": "provider_id", "_kind": "kind", "_key": "key"}

# What a SELECT in `as_of` shows is of this instant. Read once a statement, as a subquery.
AS_OF_INSTANT = (
    "(SELECT coalesce(nullif(current_setting('catlog.as_of', true), '')::timestamptz, now()))"
)


@dataclass(frozen=True)
class ViewPlan:
    """The SELECTs and marks of all views by name, and what is to be done: `changed` (made new or

    anew; kinds before the project's own) and `gone`, both by name. `twins` are the SELECTs of the
    twins, None where that follows from the view. `own` are the project's own; those of other
    projects stay as they are, and get a twin where they lack it.
    """

    wanted: dict[str, str]
    twins: dict[str, str | None]
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
    kinds = all_kinds(connection, providers)
    wanted = {**_views_of(kinds), **own}
    twins: dict[str, str | None] = {
        **{name: as_of_view(kind) for name, kind in kinds.items()},
        **dict.fromkeys(own),
    }
    marks = {
        name: f"{VIEW_COMMENT}{_hash_of(sql + AS_OF_FORMAT)} {project}"
        if name in own
        else f"{VIEW_COMMENT}{_hash_of(sql + (twins.get(name) or ''))}"
        for name, sql in wanted.items()
    }
    existing = _existing(connection)
    others = {
        name: found
        for name, found in existing.items()
        if name not in wanted and _project_of(found.mark) not in ("", project)
    }
    gone = set(existing) - set(wanted) - set(others)
    # One that somebody dropped is made again by its own project's apply.
    others = {name: found for name, found in others.items() if found.sql}
    wanted |= {name: found.sql for name, found in others.items()}
    marks |= {name: found.mark for name, found in others.items()}
    twins |= dict.fromkeys(others)
    changed = [
        name
        for name, mark in marks.items()
        if name not in existing
        or not existing[name].sql
        or existing[name].mark != mark
        or (name in twins and existing[name].twin != mark)
    ]
    return ViewPlan(
        wanted=wanted,
        twins=twins,
        marks=marks,
        own=frozenset(own),
        existing=frozenset(name for name, found in existing.items() if found.sql),
        changed=tuple(sorted(changed, key=lambda name: (name in own or name in others, name))),
        gone=tuple(sorted(gone)),
    )


def _project_of(mark: str) -> str:
    return mark.removeprefix(VIEW_COMMENT).partition(" ")[2]


def check_views(
    connection: Connection,
    providers: Iterable[ProviderDefinition],
    own: Mapping[str, str],
    project: str,
) -> list[str]:
    """The lines of what is refused: names in `public` that are somebody else's, or two kinds'."""
    others = {
        name: _project_of(found.mark)
        for name, found in _existing(connection).items()
        if _project_of(found.mark) not in ("", project)
    }
    kinds = all_kinds(connection, providers)
    views = _views_of(kinds)
    taken = rows(
        connection,
        """SELECT n.nspname AS schema, c.relname AS name FROM pg_class c
           JOIN pg_namespace n ON n.oid = c.relnamespace
           WHERE n.nspname IN ('public', :past) AND c.relname = ANY(CAST(:names AS text[]))
             AND NOT coalesce(obj_description(c.oid, 'pg_class') LIKE :mark, false)
           UNION
           SELECT n.nspname, t.typname FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
           WHERE n.nspname IN ('public', :past) AND t.typrelid = 0
             AND t.typname = ANY(CAST(:names AS text[]))
           ORDER BY 1 DESC, 2""",
        names=[*own, *views],
        past=AS_OF_SCHEMA,
        mark=VIEW_COMMENT + "%",
    )
    return [
        *(
            f'the project "{others[name]}" has a view "{name}" already; give yours another name'
            for name in sorted({*own, *views} & set(others))
        ),
        *(
            f'{found["schema"]}."{found["name"]}" exists and is no view of catlog;'
            " rename it, or the record type's view or the file in views/ so named"
            for found in taken
        ),
        # Of what is declared now, checking has said so already, with its place.
        *(
            f'views/{name}.sql: a former kind has the view "{name}"; rename the file'
            for name in sorted(set(own) & set(views))
        ),
        *(
            f'the history of the kind "{name}" is the view "{name + HISTORY_SUFFIX}", which is a'
            " kind as well, if a former one; give the newer one another view"
            for name in sorted(kinds)
            if name + HISTORY_SUFFIX in kinds
        ),
    ]


def create_partitions(connection: Connection) -> None:
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


@dataclass(frozen=True)
class _ExistingView:
    """A view of ours: its mark and SELECT, and its twin's mark, if it has one."""

    mark: str
    sql: str
    twin: str | None


def _existing(connection: Connection) -> dict[str, _ExistingView]:
    """Our views by name; also a twin whose view somebody has dropped."""
    found = rows(
        connection,
        """WITH ours AS (
               SELECT c.oid, n.nspname AS schema, c.relname AS name,
                   obj_description(c.oid, 'pg_class') AS mark
               FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname IN ('public', :past) AND c.relkind = 'v'
                 AND obj_description(c.oid, 'pg_class') LIKE :mark)
           SELECT name, p.mark, rtrim(pg_get_viewdef(p.oid), ';') AS sql,
               split_part(t.mark, :unreadable, 1) AS twin
           FROM (SELECT * FROM ours WHERE schema = 'public') AS p
           FULL JOIN (SELECT * FROM ours WHERE schema = :past) AS t USING (name)""",
        mark=VIEW_COMMENT + "%",
        past=AS_OF_SCHEMA,
        unreadable=UNREADABLE_SUFFIX,
    )
    return {
        view["name"]: _ExistingView(view["mark"] or view["twin"], view["sql"] or "", view["twin"])
        for view in found
    }


def all_kinds(
    connection: Connection, providers: Iterable[ProviderDefinition] = ()
) -> dict[str, KindDefinition]:
    """All kinds there are, or will be with *providers*, by name."""
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
        views[kind.name + HISTORY_SUFFIX] = history_view(kind)
    return views


def current_view(kind: KindDefinition) -> str:
    """The SELECT of the current records of *kind*.

    The UNION with nothing makes PostgreSQL take the columns out of `data` as it reads a row;
    otherwise it carries whole `data` through sorts and joins and takes them out behind those
    (measured: a GROUP BY over a million records takes half the time).
    """
    types = _types(kind)
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


def indexed_view(kind: KindDefinition) -> str:
    """The SELECT of the same, with the columns of the records' index in front, from `_`.

    In their order a page is found by the index, however deep it lies.
    """
    return f"""SELECT {_indexed()}{_columns(kind)}, created_at, updated_at
        FROM catlog.record WHERE kind = '{kind.name}' AND removed_at IS NULL"""


def as_of_view(kind: KindDefinition, *, by_index: bool = False) -> str:
    """The SELECT of the records of *kind* as they were at the instant that is asked for.

    *by_index*: with the columns of the index in front, as `indexed_view` has them.

    A removed record is a version alone, a revived one is both. Only one row of `record` has a key,
    so the join costs nothing where nobody asks for `created_at`.
    """
    names = ", ".join(f'"{name}"' for name, _ in _types(kind))
    if by_index:
        names = f"{', '.join(INDEX_COLUMNS)}, {names}"
    now, then = (_indexed(), _indexed("v.")) if by_index else ("", "")
    return f"""SELECT {names}, created_at, updated_at FROM (
            SELECT {now}{_columns(kind)}, created_at, updated_at FROM catlog.record
            WHERE kind = '{kind.name}' AND removed_at IS NULL AND updated_at <= {AS_OF_INSTANT}
            UNION ALL
            SELECT {then}{_columns(kind, "v.")}, r.created_at, v.valid_from
            FROM catlog.record_version v
            LEFT JOIN catlog.record r ON r.provider_id = v.provider_id AND r.key = v.key
                AND r.kind = '{kind.name}'
            WHERE v.kind = '{kind.name}' AND v.valid_from <= {AS_OF_INSTANT}
              AND v.valid_to > {AS_OF_INSTANT}
        ) AS states"""


def history_view(kind: KindDefinition, narrowed: str = "") -> str:
    """The SELECT of all states of the records of *kind*; `change` says what ended one.

    *narrowed* is a further condition on its rows in the tables.
    """
    return f"""SELECT {_columns(kind)}, valid_from, valid_to, change
        FROM catlog.record_version WHERE kind = '{kind.name}'{narrowed}
        UNION ALL
        SELECT {_columns(kind)}, updated_at, NULL, NULL
        FROM catlog.record WHERE kind = '{kind.name}' AND removed_at IS NULL{narrowed}"""


def _indexed(table: str = "") -> str:
    return "".join(f"{table}{column} AS {name}, " for name, column in INDEX_COLUMNS.items())


def _types(kind: KindDefinition) -> list[tuple[str, str]]:
    return [*kind.fields, *([("data", "jsonb")] if kind.foreign else [])]


def _columns(kind: KindDefinition, table: str = "") -> str:
    columns = [f'{_expression(name, type_, table)} AS "{name}"' for name, type_ in kind.fields]
    return ", ".join([*columns, *([f"{table}data"] if kind.foreign else [])])


def _expression(name: str, sql_type: str, table: str = "") -> str:
    if sql_type == "text":
        return f"{table}data ->> '{name}'"
    if sql_type == "jsonb":
        return f"nullif({table}data -> '{name}', 'null'::jsonb)"
    if sql_type == "interval":
        return f"make_interval(secs => ({table}data ->> '{name}')::double precision)"
    return f"({table}data ->> '{name}')::{sql_type}"
