"""Applying a view plan: views are created, replaced with their dependents, and dropped.

A dry run comes first, so that PostgreSQL's errors are known before anything changes.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine, exc

from catlog_scrapy.exceptions import DeclarationError
from catlog_scrapy.store.lock_timeouts import run_with_lock_timeout
from catlog_scrapy.store.sql import execute, row
from catlog_scrapy.store.views.as_of import (
    SELECT_ERRORS,
    AsOfViewMissing,
    changes_columns,
    create_as_of_view,
)
from catlog_scrapy.store.views.change_stamps import record_view_change
from catlog_scrapy.store.views.dependents import Grant, drop_with_dependents, restore_grants
from catlog_scrapy.store.views.naming import AS_OF_SCHEMA, HISTORY_SUFFIX
from catlog_scrapy.store.views.plan import ViewPlan

# SQLSTATE of a cursor on several statements.
SEVERAL_STATEMENTS = "42P11"
# Text before the SELECT in catlog.check_query.
CHECKED = "EXPLAIN "

Work = Callable[[Connection], None]


def dry_run_views(connection: Connection, plan: ViewPlan) -> None:
    """Apply the plan in a savepoint and roll it back.

    Raises DeclarationError for a SELECT that PostgreSQL refuses, or if a view that is not catlog's
    depends on a view whose columns change.
    """
    if plan.changed or plan.dropped:
        savepoint = connection.begin_nested()
        _apply(plan, partial(_in_savepoint, connection))
        savepoint.rollback()


def drop_kind_views(connection: Connection, kinds: Iterable[str]) -> dict[str, list[Grant]]:
    """Drop the views of *kinds* with catlog's views on them; return the grants on each of them.

    Raises DeclarationError if a view that is not catlog's depends on one of them.
    """
    grants: dict[str, list[Grant]] = {}
    for kind in kinds:
        for name in (kind, kind + HISTORY_SUFFIX):
            if name not in grants:
                grants |= drop_with_dependents(connection, name)
    return grants


def recreate_views(
    connection: Connection, plan: ViewPlan, grants: Mapping[str, list[Grant]]
) -> None:
    """Create the dropped views that the plan has, with their *grants*. Raises DeclarationError."""
    _replace(connection, plan, sorted(grants.keys() & plan.views.keys()), grants)


def apply_views(engine: Engine, plan: ViewPlan) -> None:
    """Apply the plan, with a transaction for each view where possible.

    Raises DeclarationError, or NotPossible if other sessions hold the locks.
    """
    _apply(plan, partial(run_with_lock_timeout, engine))


def _in_savepoint(connection: Connection, work: Work) -> None:
    with connection.begin_nested():
        work(connection)


def _apply(plan: ViewPlan, run_in_transaction: Callable[[Work], None]) -> None:
    """Create one view after the other, in rounds, since project views may read each other.

    Views that still fail need dependents to be dropped first, which takes one transaction.
    """
    pending = list(plan.changed)
    while pending:
        failed = [name for name in pending if not _try_create(plan, name, run_in_transaction)]
        if failed == pending:
            break
        pending = failed
    if pending or plan.dropped:
        run_in_transaction(lambda connection: _replace_and_drop(connection, plan, pending))


def _try_create(plan: ViewPlan, name: str, run_in_transaction: Callable[[Work], None]) -> bool:
    try:
        run_in_transaction(lambda connection: _create(connection, plan, name))
    except SELECT_ERRORS:
        return False
    return True


def _replace_and_drop(connection: Connection, plan: ViewPlan, names: Sequence[str]) -> None:
    """Create *names*, then drop the views that the plan drops. Raises DeclarationError."""
    _replace(connection, plan, names, {})
    for name in plan.dropped:
        drop_with_dependents(connection, name, keep=plan.views.keys())


def _replace(
    connection: Connection,
    plan: ViewPlan,
    names: Sequence[str],
    known_grants: Mapping[str, list[Grant]],
) -> None:
    """Create *names*, after dropping views whose columns change and catlog's views on them.

    Restores *known_grants* and those of dropped views. Raises DeclarationError.
    """
    pending = list(names)
    dropped: set[str] = set()
    grants = dict(known_grants)
    while pending:
        errors: dict[str, exc.DBAPIError | AsOfViewMissing] = {}
        before = (list(pending), set(dropped))
        for name in before[0]:
            try:
                with connection.begin_nested():
                    _create(connection, plan, name)
                    restore_grants(connection, name, grants.get(name, ()))
                pending.remove(name)
            except SELECT_ERRORS as error:
                errors[name] = error
                if changes_columns(error) and name not in dropped:
                    found = drop_with_dependents(connection, name)
                    grants |= found
                    dropped |= found.keys()
                    pending += sorted((found.keys() & plan.views.keys()) - set(pending))
        if (pending, dropped) == before:
            raise DeclarationError(_error_message(plan, errors))


def _create(connection: Connection, plan: ViewPlan, name: str) -> None:
    view = plan.views[name]
    if view.file is not None:
        row(connection, "SELECT catlog.check_query(:query)", query=view.select)
    execute(connection, _create_statement(name) + view.select)
    # PostgreSQL refuses a view that reads itself only when the view is read.
    execute(connection, f'EXPLAIN SELECT FROM public."{name}"')
    execute(connection, f"COMMENT ON VIEW public.\"{name}\" IS '{view.comment}'")
    if view.has_as_of_view:
        create_as_of_view(connection, name, view.as_of_select, view.comment, plan.with_as_of_view)
    record_view_change(connection)


def _error_line(name: str, select: str, diagnosis: Any) -> int | None:
    """Return the line of a SELECT that PostgreSQL refused, in check_query or in CREATE VIEW."""
    for position, before in (
        (getattr(diagnosis, "internal_position", None), CHECKED),
        (getattr(diagnosis, "statement_position", None), _create_statement(name)),
    ):
        if position and int(position) > len(before):
            return select.count("\n", 0, int(position) - 1 - len(before)) + 1
    return None


def _create_statement(name: str) -> str:
    return f'CREATE OR REPLACE VIEW public."{name}" AS\n'


def _error_message(plan: ViewPlan, errors: Mapping[str, exc.DBAPIError | AsOfViewMissing]) -> str:
    """Return a line with file, line, PostgreSQL's message and remedy for each refused view."""
    lines = []
    for name, error in errors.items():
        if isinstance(error, AsOfViewMissing):
            # A consequence of another view's error, which is in the list.
            continue
        diagnosis = getattr(error.orig, "diag", None)
        message = getattr(diagnosis, "message_primary", None) or str(error.orig).strip()
        view = plan.views[name]
        if view.file is None:
            lines.append(
                f'the view "{name}": {message}; this role must own it, and have CREATE on the'
                f" schemas public and {AS_OF_SCHEMA}"
            )
            continue
        if getattr(error.orig, "pgcode", None) == SEVERAL_STATEMENTS:
            lines.append(f"{view.file}: the file has a second statement; keep one SELECT")
            continue
        line = _error_line(name, view.select, diagnosis)
        place = f"{view.file}:{line}" if line else view.file
        lines.append(f"{place}: {message}; correct its SELECT")
    return "\n  ".join(["PostgreSQL refuses:", *lines])
