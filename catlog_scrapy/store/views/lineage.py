"""Lineage of a view: the kinds and relations that it reads."""

from dataclasses import dataclass

from sqlalchemy import Connection

from catlog_scrapy.store.schemes import all_kinds
from catlog_scrapy.store.sql import load_sql, row
from catlog_scrapy.store.views.naming import (
    AS_OF_SCHEMA,
    HISTORY_SUFFIX,
    UNREADABLE_SUFFIX,
    VIEW_COMMENT,
)


@dataclass(frozen=True)
class ViewSources:
    """Sources of a view, direct or through other views, sorted.

    `others` are relations that are neither views of kinds nor other views of catlog, as
    `schema.name`; catlog does not know when they change. `is_volatile` says that rows may change
    by themselves: the view reads the clock, a setting or random numbers, or calls a user's
    function, which may read anything. `has_as_of_view` is false if its as-of view is missing or
    cannot be read. `reads_history` says that it reads history views, whose rows are pruned without
    a change stamp.
    """

    kinds: tuple[str, ...]
    others: tuple[str, ...]
    is_volatile: bool
    has_as_of_view: bool
    reads_history: bool = False

    @property
    def cacheable_kinds(self) -> tuple[str, ...] | None:
        """The kinds, if the view changes only with their records; otherwise None."""
        return None if self.others or self.is_volatile or self.reads_history else self.kinds


def view_sources(connection: Connection, view: str) -> ViewSources:
    """Return the sources of `public.view`; a missing view has no sources.

    A history view counts as its kind.
    """
    kinds = set(all_kinds(connection))
    histories = {kind + HISTORY_SUFFIX: kind for kind in kinds}
    read: set[str] = set()
    others: set[str] = set()
    is_volatile = reads_history = False
    # The search ends at views of kinds: below are catlog's tables, and casts that PostgreSQL
    # declares stable although they are constant here.
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
        found = row(
            connection,
            load_sql(__name__, "relation_sources"),
            schema=schema,
            name=name,
            comment=VIEW_COMMENT + "%",
        )
        if found is None:
            continue
        if not found["is_own"]:
            others.add(f"{schema}.{name}")
        is_volatile = is_volatile or bool(found["is_volatile"])
        pending += [(part["schema"], part["name"]) for part in found["reads"]]
    return ViewSources(
        tuple(sorted(read)),
        tuple(sorted(others)),
        is_volatile,
        _has_as_of_view(connection, view),
        reads_history,
    )


def _has_as_of_view(connection: Connection, view: str) -> bool:
    found = row(
        connection,
        """SELECT obj_description(c.oid, 'pg_class') AS comment FROM pg_class c
           WHERE c.relnamespace = to_regnamespace(:as_of) AND c.relname = :view""",
        as_of=AS_OF_SCHEMA,
        view=view,
    )
    return found is not None and not str(found["comment"]).endswith(UNREADABLE_SUFFIX)
