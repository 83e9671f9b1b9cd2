"""Views made, made anew with what reads them, and dropped. Rehearsed first, so that what

PostgreSQL refuses is known before anything changes.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine, exc

from catlog_scrapy.exceptions import DeclarationError
from catlog_scrapy.store.lock_timeouts import run_with_lock_timeout
from catlog_scrapy.store.sql import execute, rows, run
from catlog_scrapy.store.views.as_of import (
    SELECT_ERRORS,
    AsOfViewMissing,
    changes_columns,
    create_as_of_view,
)
from catlog_scrapy.store.views.change_stamps import record_view_change
from catlog_scrapy.store.views.typed import AS_OF_SCHEMA, VIEW_COMMENT, ViewPlan

Grants = dict[str, list[Mapping[str, Any]]]
Work = Callable[[Connection], None]


def dry_run_views(connection: Connection, plan: ViewPlan) -> None:
    """Make the views of *plan* and take it all back.

    Raises DeclarationError for a SELECT that PostgreSQL refuses, or where a view that is not
    catlog's depends on one whose columns change.
    """
    if plan.changed or plan.gone:
        trial = connection.begin_nested()
        _make(plan, partial(_nested, connection))
        trial.rollback()


def apply_views(engine: Engine, plan: ViewPlan) -> None:
    """Make the views of *plan*, each in a transaction of its own where that can be.

    Raises DeclarationError, or NotPossible where the locks are not to be had.
    """
    _make(plan, partial(run_with_lock_timeout, engine))


def _nested(connection: Connection, work: Work) -> None:
    with connection.begin_nested():
        work(connection)


def _make(plan: ViewPlan, run_alone: Callable[[Work], None]) -> None:
    """The project's own views may read each other, so try until all stand.

    What cannot stand like that is made together, for it waits for views that must be made anew.
    """
    pending = list(plan.changed)
    while pending:
        left = [name for name in pending if not _made(plan, name, run_alone)]
        if left == pending:
            break
        pending = left
    if pending or plan.gone:
        run_alone(lambda connection: _make_together(connection, plan, pending))


def _made(plan: ViewPlan, name: str, run_alone: Callable[[Work], None]) -> bool:
    try:
        run_alone(lambda connection: _create(connection, plan, name))
    except SELECT_ERRORS:
        return False
    return True


def _make_together(connection: Connection, plan: ViewPlan, names: Sequence[str]) -> None:
    """Make *names*, dropping those whose columns change together with our views that read them.

    Then drop what is gone. Raises DeclarationError.
    """
    pending = list(names)
    dropped: set[str] = set()
    grants: Grants = defaultdict(list)
    while pending:
        refused: dict[str, exc.DBAPIError | AsOfViewMissing] = {}
        before = (list(pending), set(dropped))
        for name in before[0]:
            try:
                with connection.begin_nested():
                    _create(connection, plan, name)
                    _grant(connection, name, grants[name])
                pending.remove(name)
            except SELECT_ERRORS as error:
                refused[name] = error
                if changes_columns(error) and name not in dropped:
                    doomed = _drop_with_readers(connection, name, grants)
                    dropped |= doomed
                    again = sorted((doomed & plan.wanted.keys()) - set(pending))
                    pending += again
        if (pending, dropped) == before:
            raise DeclarationError(_told(plan, refused))
    for name in plan.gone:
        _drop_with_readers(connection, name, grants, keep=plan.wanted.keys())


def _create(connection: Connection, plan: ViewPlan, name: str) -> None:
    execute(connection, _statement(name) + plan.wanted[name])
    # A view that reads itself, by whatever way, is refused only when it is read.
    execute(connection, f'EXPLAIN SELECT FROM public."{name}"')
    execute(connection, f"COMMENT ON VIEW public.\"{name}\" IS '{plan.marks[name]}'")
    if name in plan.twins:
        create_as_of_view(connection, name, plan.twins[name], plan.marks[name], plan.twins)
    record_view_change(connection)


def _statement(name: str) -> str:
    return f'CREATE OR REPLACE VIEW public."{name}" AS\n'


def _drop_with_readers(
    connection: Connection, name: str, grants: Grants, keep: Iterable[str] = ()
) -> set[str]:
    """Drop a view, our views that read it, and their twins; their names. Notes who may read them.

    Raises DeclarationError where one that reads it is not catlog's, or is to be kept.
    """
    readers = rows(
        connection,
        """WITH RECURSIVE doomed AS (
               SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname IN ('public', :past) AND c.relname = :name
                 AND obj_description(c.oid, 'pg_class') LIKE :mark
               UNION
               SELECT further.oid FROM doomed, LATERAL (
                   SELECT r.ev_class AS oid FROM pg_depend d
                   JOIN pg_rewrite r ON r.oid = d.objid
                   WHERE d.refobjid = doomed.oid AND d.refclassid = 'pg_class'::regclass
                     AND d.classid = 'pg_rewrite'::regclass
                   UNION ALL
                   SELECT twin.oid FROM pg_class c
                   JOIN pg_class twin ON twin.relname = c.relname
                       AND twin.relnamespace = to_regnamespace(:past)
                   WHERE c.oid = doomed.oid AND c.relnamespace = 'public'::regnamespace
                     AND obj_description(c.oid, 'pg_class') LIKE :mark) AS further)
           SELECT n.nspname AS schema, c.relname AS name,
               CAST(CAST(c.oid AS regclass) AS text) AS title,
               n.nspname IN ('public', :past) AND c.relkind = 'v'
                   AND coalesce(obj_description(c.oid, 'pg_class') LIKE :mark, false) AS ours
           FROM doomed JOIN pg_class c ON c.oid = doomed.oid
           JOIN pg_namespace n ON n.oid = c.relnamespace ORDER BY 2, 1""",
        name=name,
        mark=VIEW_COMMENT + "%",
        past=AS_OF_SCHEMA,
    )
    for reader in readers:
        if not reader["ours"]:
            raise _still_read(name, f"{reader['title']} reads it")
        if reader["name"] in keep:
            raise DeclarationError(
                f'the view "{name}" is to go, but views/{reader["name"]}.sql reads it;'
                " correct its SELECT."
            )
    names = {reader["name"] for reader in readers}
    for reader in names:
        grants[reader] = _grants(connection, reader)
    try:
        if readers:
            listed = ", ".join(f'{reader["schema"]}."{reader["name"]}"' for reader in readers)
            run(connection, f"DROP VIEW {listed}")
    except exc.InternalError as error:
        # Not a view, but a function, a policy or a column of its row type.
        detail = getattr(error.orig, "diag", None)
        told = str(getattr(detail, "message_detail", None) or error.orig).splitlines()[0]
        raise _still_read(name, told) from error
    return names


def _still_read(name: str, why: str) -> DeclarationError:
    return DeclarationError(
        f'the view "{name}" cannot stay as it is, but {why};'
        " drop what reads it, apply again, and make it anew."
    )


def _grants(connection: Connection, name: str) -> list[Mapping[str, Any]]:
    """Who but its owner may do what with a view, and with its twin."""
    return rows(
        connection,
        """SELECT n.nspname AS schema, acl.privilege_type AS privilege,
               acl.is_grantable AS grantable,
               CASE WHEN acl.grantee = 0 THEN 'PUBLIC'
                   ELSE quote_ident(pg_get_userbyid(acl.grantee)) END AS grantee
           FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,
               aclexplode(c.relacl) AS acl
           WHERE n.nspname IN ('public', :past) AND c.relname = :name
             AND acl.grantee <> c.relowner""",
        name=name,
        past=AS_OF_SCHEMA,
    )


def _grant(connection: Connection, name: str, grants: Iterable[Mapping[str, Any]]) -> None:
    """Who could read a view before it was made anew still can."""
    for grant in grants:
        option = " WITH GRANT OPTION" if grant["grantable"] else ""
        execute(
            connection,
            f'GRANT {grant["privilege"]} ON {grant["schema"]}."{name}"'
            f" TO {grant['grantee']}{option}",
        )


def _told(plan: ViewPlan, refused: Mapping[str, exc.DBAPIError | AsOfViewMissing]) -> str:
    """A line for each view that PostgreSQL refused: file, line, its words, remedy."""
    lines = []
    for name, error in refused.items():
        if isinstance(error, AsOfViewMissing):
            # Another one is refused, and told.
            continue
        diagnosis = getattr(error.orig, "diag", None)
        message = getattr(diagnosis, "message_primary", None) or str(error.orig).strip()
        if name not in plan.own:
            lines.append(
                f'the view "{name}": {message}; this role must own it, and have CREATE on the'
                f" schemas public and {AS_OF_SCHEMA}"
            )
            continue
        position = int(getattr(diagnosis, "statement_position", None) or 0)
        before = (_statement(name) + plan.wanted[name])[: max(position - 1, 0)]
        place = f"views/{name}.sql:{before.count(chr(10))}" if position else f"views/{name}.sql"
        lines.append(f"{place}: {message}; correct its SELECT")
    return "\n  ".join(["PostgreSQL refuses:", *lines])
