"""Provider files: reading, checking, comparing with the database, applying."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from psycopg2.errors import InsufficientPrivilege, TooManyColumns
from scrapy.settings import BaseSettings
from sqlalchemy import Connection, Engine, exc

from catlog_scrapy.console import warn
from catlog_scrapy.db.engine import reason
from catlog_scrapy.declarations.checking import CheckedProviders, check
from catlog_scrapy.declarations.comparing import Change, compare
from catlog_scrapy.declarations.reading import read_providers, read_views
from catlog_scrapy.declarations.resources import Resources, read_resources
from catlog_scrapy.declarations.spiders import (
    base_url_of,
    load_spiders,
    operation_record_types,
    project_name,
    spider_arguments,
)
from catlog_scrapy.exceptions import DeclarationError
from catlog_scrapy.store.definitions import KindDefinition
from catlog_scrapy.store.lock_timeouts import apply_lock, run_with_lock_timeout
from catlog_scrapy.store.record_tables.altering import (
    alter_tables,
    drop_unused_tables,
    plan_tables,
    refused_changes,
)
from catlog_scrapy.store.record_tables.indexes import (
    IndexPlan,
    TableIndex,
    apply_indexes,
    plan_indexes,
    refused_constraints,
    resource_indexes,
)
from catlog_scrapy.store.record_tables.layout import RECORDS_SCHEMA
from catlog_scrapy.store.schemes import (
    all_kinds,
    lock_declarations,
    retire_provider,
    stored_providers,
    write_provider,
)
from catlog_scrapy.store.views.applying import (
    apply_views,
    drop_kind_views,
    dry_run_views,
    recreate_views,
)
from catlog_scrapy.store.views.plan import ViewPlan, check_views, plan_views

__all__ = [
    "Change",
    "apply",
    "base_url_of",
    "load_spiders",
    "operation_record_types",
    "project_name",
    "spider_arguments",
]


def apply(engine: Engine, settings: BaseSettings, *, check_only: bool = False) -> list[Change]:
    """Apply the project's declarations to the database and return the changes.

    With *check_only*, nothing changes. All rows change in one transaction; each view changes in a
    transaction of its own. A second run continues an interrupted one. Raises DeclarationError with
    a line for each mistake before any change, and NotPossible if a lock is not available in time.
    """
    files, mistakes = read_providers(Path(settings["CATLOG_PROVIDERS"]))
    views, view_mistakes = read_views(Path(settings["CATLOG_VIEWS"]))
    checked = check(files, load_spiders(settings), views)
    raise_mistakes(mistakes + view_mistakes + checked.mistakes)
    for note in checked.notes:
        warn(note)
    project = project_name(settings)
    resources = read_resources(settings)
    with apply_lock(engine):
        changes, plan, indexes = run_with_lock_timeout(
            engine,
            lambda connection: _apply_rows(
                connection, checked, views, resources, project, check_only=check_only
            ),
        )
        if not check_only:
            apply_views(engine, plan)
            run_with_lock_timeout(engine, drop_unused_tables)
            apply_indexes(engine, indexes)
    return [
        *changes,
        *(Change(sign, f"view {name}") for sign, name in plan.changes()),
        *(Change(*line) for line in indexes.lines()),
    ]


def _apply_rows(
    connection: Connection,
    checked: CheckedProviders,
    views: Mapping[str, str],
    resources: Resources,
    project: str,
    *,
    check_only: bool,
) -> tuple[list[Change], ViewPlan, IndexPlan]:
    """Write the rows, change the record tables, and try out the views.

    With *check_only*, roll back afterwards. Providers of other projects stay as they are.
    """
    declared = [replace(provider, project=project) for provider in checked.providers]
    transaction = connection.get_transaction()
    lock_declarations(connection)
    stored = stored_providers(connection)
    changes, refused = compare(declared, stored, project, checked.format_mistake)
    raise_mistakes(refused + check_views(connection, declared, views, project))
    former = all_kinds(connection)
    if changes:
        for provider in stored:
            if provider.name not in checked.files and provider.project in (None, project):
                retire_provider(connection, provider.name)
        for declaration in declared:
            write_provider(connection, declaration)
    plan = plan_views(connection, declared, views, project)
    kinds = all_kinds(connection, declared)
    # The server reports a resource of a view that does not exist.
    known = [found for found in resources.resources if found.view in {*kinds, *views}]
    of_resources = _resource_indexes(replace(resources, resources=tuple(known)), kinds, project)
    indexes = plan_indexes(connection, kinds.values(), of_resources, project)
    raise_mistakes(refused_constraints(connection, kinds.values(), former))
    changes += _change_tables(connection, former, kinds, plan, check_only=check_only)
    dry_run_views(connection, plan)
    if check_only and transaction:
        transaction.rollback()
    return changes, plan, indexes


def _change_tables(
    connection: Connection,
    former: Mapping[str, KindDefinition],
    kinds: Mapping[str, KindDefinition],
    plan: ViewPlan,
    *,
    check_only: bool,
) -> list[Change]:
    """Change the record tables; views of kinds with a converted field are created anew."""
    changes = plan_tables(connection, kinds.values(), former)
    raise_mistakes(refused_changes(connection, changes))
    converted = [change.kind.name for change in changes if change.converted]
    grants = drop_kind_views(connection, converted)
    try:
        alter_tables(connection, changes, is_rehearsal=check_only)
    except exc.OperationalError as error:
        if not isinstance(error.orig, TooManyColumns):
            raise
        raise DeclarationError(
            f"{reason(error)}; columns of removed fields stay in the table: give the record type"
            " another view"
        ) from error
    except exc.ProgrammingError as error:
        if not isinstance(error.orig, InsufficientPrivilege):
            raise
        raise DeclarationError(
            f"{reason(error)}; this role must own the schema {RECORDS_SCHEMA} and its tables"
        ) from error
    recreate_views(connection, plan, grants)
    return [Change(*line) for change in changes for line in change.lines()]


def _resource_indexes(
    resources: Resources, kinds: Mapping[str, KindDefinition], project: str
) -> list[TableIndex]:
    """Return the indexes that the project's resources declare. Raises DeclarationError."""
    indexes: list[TableIndex] = []
    for resource in resources.resources:
        if resource.filters or resource.order:
            found, mistakes = resource_indexes(
                resource.view, resource.filters, resource.order, kinds, project
            )
            raise_mistakes(
                [f"{resources.file}: resources.{resource.path}: {mistake}" for mistake in mistakes]
            )
            indexes += found
    return indexes


def raise_mistakes(mistakes: list[str]) -> None:
    """Raise DeclarationError with all *mistakes*, if there are any."""
    if mistakes:
        raise DeclarationError("\n  ".join(["nothing was changed:", *mistakes]))
