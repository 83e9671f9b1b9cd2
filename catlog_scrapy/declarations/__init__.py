"""Provider files: reading, checking, comparing with the database, applying."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from scrapy.settings import BaseSettings
from sqlalchemy import Connection, Engine

from catlog_scrapy.declarations.checking import CheckedProviders, check
from catlog_scrapy.declarations.comparing import Change, compare
from catlog_scrapy.declarations.reading import read_providers, read_views
from catlog_scrapy.declarations.spiders import (
    base_url_of,
    load_spiders,
    operation_record_types,
    project_name,
    spider_arguments,
)
from catlog_scrapy.exceptions import DeclarationError
from catlog_scrapy.store.lock_timeouts import apply_lock, run_with_lock_timeout
from catlog_scrapy.store.publishing.record_tables import create_partitions
from catlog_scrapy.store.schemes import (
    lock_declarations,
    retire_provider,
    stored_providers,
    write_provider,
)
from catlog_scrapy.store.views.applying import apply_views, dry_run_views
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
    with apply_lock(engine):
        changes, plan = run_with_lock_timeout(
            engine,
            lambda connection: _apply_rows(
                connection, checked, views, project_name(settings), check_only=check_only
            ),
        )
        if not check_only:
            apply_views(engine, plan)
    return changes + [Change(sign, f"view {name}") for sign, name in plan.changes()]


def _apply_rows(
    connection: Connection,
    checked: CheckedProviders,
    views: Mapping[str, str],
    project: str,
    *,
    check_only: bool,
) -> tuple[list[Change], ViewPlan]:
    """Write the rows and try out the views; with *check_only*, roll back afterwards.

    Providers of other projects stay as they are.
    """
    declared = [replace(provider, project=project) for provider in checked.providers]
    transaction = connection.get_transaction()
    lock_declarations(connection)
    stored = stored_providers(connection)
    changes, refused = compare(declared, stored, project, checked.format_mistake)
    raise_mistakes(refused + check_views(connection, declared, views, project))
    if changes:
        for former in stored:
            if former.name not in checked.files and former.project in (None, project):
                retire_provider(connection, former.name)
        for provider in declared:
            write_provider(connection, provider)
    create_partitions(connection)
    plan = plan_views(connection, declared, views, project)
    dry_run_views(connection, plan)
    if check_only and transaction:
        transaction.rollback()
    return changes, plan


def raise_mistakes(mistakes: list[str]) -> None:
    """Raise DeclarationError with all *mistakes*, if there are any."""
    if mistakes:
        raise DeclarationError("\n  ".join(["nothing was changed:", *mistakes]))
