"""Plan of the views: what to create, replace and drop, and what is refused before that."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection

from catlog_scrapy.store.definitions import KindDefinition, ProviderDefinition
from catlog_scrapy.store.schemes import all_kinds
from catlog_scrapy.store.sql import rows
from catlog_scrapy.store.views.naming import (
    AS_OF_SCHEMA,
    HISTORY_SUFFIX,
    UNREADABLE_SUFFIX,
    VIEW_COMMENT,
    project_of,
)
from catlog_scrapy.store.views.typed import as_of_view, typed_views

# Part of the hash of project views. Raise it when their as-of views are derived differently.
AS_OF_FORMAT = "\n1"


@dataclass(frozen=True)
class PlannedView:
    """A view that shall exist, with its comment.

    `as_of_select` is the SELECT of its as-of view; None derives the as-of view from the view.
    History views have no as-of view. `file` is the project file that holds the SELECT.
    """

    select: str
    comment: str
    has_as_of_view: bool = True
    as_of_select: str | None = None
    file: str | None = None


@dataclass(frozen=True)
class ViewPlan:
    """All views that shall exist, by name, and the names of those to change and to drop.

    `changed` are new or replaced views, kinds before project views. `existing` are the present
    views. Views of other projects stay as they are, but get their missing as-of views.
    """

    views: Mapping[str, PlannedView]
    existing: frozenset[str]
    changed: tuple[str, ...]
    dropped: tuple[str, ...]

    @property
    def with_as_of_view(self) -> list[str]:
        """The names of all views that have or get an as-of view."""
        return [name for name, view in self.views.items() if view.has_as_of_view]

    def changes(self) -> list[tuple[str, str]]:
        """Return the sign (`+`, `~`, `-`) and name of each change."""
        return [
            *(("~" if name in self.existing else "+", name) for name in self.changed),
            *(("-", name) for name in self.dropped),
        ]


@dataclass(frozen=True)
class _ExistingView:
    """A present view of catlog. `as_of_comment` is that of its as-of view, if there is any.

    `select` is "" if somebody dropped the view but not its as-of view.
    """

    comment: str
    select: str
    as_of_comment: str | None


def plan_views(
    connection: Connection,
    providers: Iterable[ProviderDefinition],
    project_views: Mapping[str, str],
    project: str,
) -> ViewPlan:
    """Compare the views that shall exist with those that do.

    The views are those of all kinds, stored or declared by *providers*, and the *project_views*.
    """
    existing = _existing_views(connection)
    planned = {
        **_kind_views(all_kinds(connection, providers)),
        **{name: _project_view(name, sql, project) for name, sql in project_views.items()},
    }
    foreign = {
        name: view
        for name, view in existing.items()
        if name not in planned and project_of(view.comment) not in ("", project)
    }
    dropped = existing.keys() - planned.keys() - foreign.keys()
    # A view of another project that somebody dropped is created by that project's apply.
    planned |= {
        name: PlannedView(view.select, view.comment)
        for name, view in foreign.items()
        if view.select
    }
    changed = [name for name, view in planned.items() if _differs(view, existing.get(name))]
    return ViewPlan(
        views=planned,
        existing=frozenset(name for name, view in existing.items() if view.select),
        changed=tuple(
            sorted(changed, key=lambda name: (bool(project_of(planned[name].comment)), name))
        ),
        dropped=tuple(sorted(dropped)),
    )


def _kind_views(kinds: Mapping[str, KindDefinition]) -> dict[str, PlannedView]:
    planned = {}
    for name, select in typed_views(kinds).items():
        as_of = as_of_view(kinds[name]) if name in kinds else None
        comment = VIEW_COMMENT + _hash_of(select + (as_of or ""))
        planned[name] = PlannedView(select, comment, as_of is not None, as_of)
    return planned


def _project_view(name: str, select: str, project: str) -> PlannedView:
    comment = f"{VIEW_COMMENT}{_hash_of(select + AS_OF_FORMAT)} {project}"
    return PlannedView(select, comment, file=f"views/{name}.sql")


def _differs(view: PlannedView, existing: _ExistingView | None) -> bool:
    return (
        existing is None
        or not existing.select
        or existing.comment != view.comment
        or (view.has_as_of_view and existing.as_of_comment != view.comment)
    )


def _hash_of(sql: str) -> str:
    return hashlib.sha256(sql.encode()).hexdigest()[:16]


def check_views(
    connection: Connection,
    providers: Iterable[ProviderDefinition],
    project_views: Mapping[str, str],
    project: str,
) -> list[str]:
    """Return an error for each view name that others use: relations, projects, or two kinds."""
    owners = {
        name: project_of(view.comment)
        for name, view in _existing_views(connection).items()
        if project_of(view.comment) not in ("", project)
    }
    kinds = all_kinds(connection, providers)
    names = {*project_views, *typed_views(kinds)}
    return [
        *(
            f'the project "{owners[name]}" has a view "{name}" already; give yours another name'
            for name in sorted(names & owners.keys())
        ),
        *(
            f"{relation} exists and was not created by catlog; rename it, or the record type's view"
            " or the file in views/ with this name"
            for relation in _foreign_relations(connection, names)
        ),
        # For present kinds, checking the declarations has reported this with its place.
        *(
            f'views/{name}.sql: a former kind has the view "{name}"; rename the file'
            for name in sorted(project_views.keys() & typed_views(kinds).keys())
        ),
        *(
            f'the history view of the kind "{name}" would be "{name + HISTORY_SUFFIX}", which is'
            " also a kind, maybe a former one; give the newer kind another view"
            for name in sorted(kinds)
            if name + HISTORY_SUFFIX in kinds
        ),
    ]


def _foreign_relations(connection: Connection, names: Iterable[str]) -> list[str]:
    """Return the relations and types with these *names* that are not catlog's."""
    taken = rows(
        connection,
        """SELECT n.nspname AS schema, c.relname AS name FROM pg_class c
           JOIN pg_namespace n ON n.oid = c.relnamespace
           WHERE n.nspname IN ('public', :as_of) AND c.relname = ANY(CAST(:names AS text[]))
             AND NOT coalesce(obj_description(c.oid, 'pg_class') LIKE :comment, false)
           UNION
           SELECT n.nspname, t.typname FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
           WHERE n.nspname IN ('public', :as_of) AND t.typrelid = 0
             AND t.typname = ANY(CAST(:names AS text[]))
           ORDER BY 1 DESC, 2""",
        names=list(names),
        as_of=AS_OF_SCHEMA,
        comment=VIEW_COMMENT + "%",
    )
    return [f'{relation["schema"]}."{relation["name"]}"' for relation in taken]


def _existing_views(connection: Connection) -> dict[str, _ExistingView]:
    """Return catlog's present views by name, as-of views without a view included."""
    found = rows(
        connection,
        """WITH own AS (
               SELECT c.oid, n.nspname AS schema, c.relname AS name,
                   obj_description(c.oid, 'pg_class') AS comment
               FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname IN ('public', :as_of) AND c.relkind = 'v'
                 AND obj_description(c.oid, 'pg_class') LIKE :comment)
           SELECT name, p.comment, rtrim(pg_get_viewdef(p.oid), ';') AS sql,
               split_part(t.comment, :unreadable, 1) AS as_of_comment
           FROM (SELECT * FROM own WHERE schema = 'public') AS p
           FULL JOIN (SELECT * FROM own WHERE schema = :as_of) AS t USING (name)""",
        comment=VIEW_COMMENT + "%",
        as_of=AS_OF_SCHEMA,
        unreadable=UNREADABLE_SUFFIX,
    )
    return {
        view["name"]: _ExistingView(
            view["comment"] or view["as_of_comment"], view["sql"] or "", view["as_of_comment"]
        )
        for view in found
    }
