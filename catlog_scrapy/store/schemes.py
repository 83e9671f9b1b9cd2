"""Reads and writes of definitions: providers, schemes, operations, kinds, schedules."""

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection

from catlog_scrapy.models import (
    CatalogScheme,
    CatalogSchemeOperation,
    Provider,
    StoredKind,
    StoredSchedule,
)
from catlog_scrapy.scheduling.due import next_due
from catlog_scrapy.store.definitions import (
    KindDefinition,
    OperationDefinition,
    ProviderDefinition,
    ScheduleDefinition,
    SchemeDefinition,
)
from catlog_scrapy.store.sql import row, rows, run, scalar, upsert

# Whether a version is frozen: a catalog of it is open, or has results that are kept. A scheme of
# included schemes has no results of its own.
IS_USED = """EXISTS (
    SELECT 1 FROM catlog.catalog c WHERE c.scheme_id = s.id AND c.state <> 'skipped' AND (
        c.finished_at IS NULL OR s.includes <> '[]'
        OR EXISTS (SELECT 1 FROM jsonb_each_text(c.published) AS count WHERE count.value <> '0')
        OR EXISTS (
            SELECT 1 FROM catlog.catalog_scheme_operation_instance i
            JOIN catlog.instance_attempt a ON a.instance_id = i.id AND a.attempt = i.attempt
            WHERE i.catalog_id = c.id AND a.outcome = 'done' AND a.accepted > 0)))"""


def lock_declarations(connection: Connection) -> None:
    """Lock all schedules, and unused scheme versions with their catalogs, to the transaction's end.

    Otherwise a catalog could use a version after the comparison and before the change. Schedules
    come first, in the scheduler's lock order: it locks a schedule, then creates a catalog. The lock
    of a catalog keeps it from being retried.
    """
    run(connection, "SELECT 1 FROM catlog.schedule ORDER BY id FOR NO KEY UPDATE")
    run(
        connection,
        f"SELECT 1 FROM catlog.catalog_scheme s WHERE NOT {IS_USED} ORDER BY id FOR UPDATE",
    )
    run(
        connection,
        f"""SELECT 1 FROM catlog.catalog WHERE scheme_id IN (
               SELECT s.id FROM catlog.catalog_scheme s WHERE NOT {IS_USED})
           ORDER BY id FOR NO KEY UPDATE""",
    )


def stored_providers(connection: Connection) -> list[ProviderDefinition]:
    """Return all stored providers, retired scheme versions included, oldest versions first."""
    schemes = _stored_schemes(connection)
    schedules = _grouped(
        connection,
        """SELECT provider_id AS parent, scheme_name AS scheme, name, cron, timezone, arguments,
               catch_up, enabled
           FROM catlog.schedule WHERE origin = 'file' ORDER BY 2, 3""",
    )
    return [
        ProviderDefinition(
            name=provider["name"],
            title=provider["title"],
            base_url=provider["base_url"],
            max_running=provider["max_running"],
            secrets=tuple(provider["secrets"]),
            project=provider["project"],
            schemes=tuple(schemes[provider["id"]]),
            schedules=tuple(ScheduleDefinition(**found) for found in schedules[provider["id"]]),
        )
        for provider in rows(connection, "SELECT * FROM catlog.provider ORDER BY name")
    ]


def _stored_schemes(connection: Connection) -> dict[UUID, list[SchemeDefinition]]:
    operations = _stored_operations(connection)
    schemes: dict[UUID, list[SchemeDefinition]] = defaultdict(list)
    for found in rows(
        connection,
        f"""SELECT s.id, s.provider_id, s.name, s.version, s.max_errors, s.includes, s.after,
               frozen.used,
               CASE WHEN frozen.used THEN ARRAY[]::text[] ELSE ARRAY(
                   SELECT o.name FROM catlog.catalog_scheme_operation o
                   WHERE o.scheme_id = s.id AND EXISTS (
                       SELECT 1 FROM catlog.catalog c
                       JOIN catlog.catalog_scheme_operation_instance i ON i.catalog_id = c.id
                       WHERE c.scheme_id = s.id AND i.operation_id = o.id)) END AS attempted,
               s.retired_at IS NOT NULL AS retired
           FROM catlog.catalog_scheme s
           -- OFFSET 0 keeps the planner from looking twice.
           CROSS JOIN LATERAL (SELECT {IS_USED} AS used OFFSET 0) AS frozen
           ORDER BY name, version""",
    ):
        scheme = dict(found)
        id_, provider_id = scheme.pop("id"), scheme.pop("provider_id")
        scheme["includes"] = tuple(scheme["includes"])
        scheme["attempted"] = frozenset(scheme["attempted"])
        schemes[provider_id].append(SchemeDefinition(operations=tuple(operations[id_]), **scheme))
    return schemes


def _stored_operations(connection: Connection) -> dict[UUID, list[OperationDefinition]]:
    kinds = _grouped(
        connection,
        """SELECT operation_id AS parent, name, key, fields, foreign_type, indexes, unique_fields,
               untracked, item_rules
           FROM catlog.kind ORDER BY name COLLATE "C" """,
    )
    operations: dict[UUID, list[OperationDefinition]] = defaultdict(list)
    for found in rows(
        connection,
        """SELECT id, scheme_id, name, spider, executor, arguments, for_each,
               standalone_arguments, hosts, mode, isolate, tags, tolerate, min_results, timeout,
               start_timeout, stall_timeout, backoff_base, backoff_cap, keep, overlap, refresh
           FROM catlog.catalog_scheme_operation ORDER BY name COLLATE "C" """,
    ):
        operation = dict(found)
        id_, scheme_id = operation.pop("id"), operation.pop("scheme_id")
        operations[scheme_id].append(
            OperationDefinition(kinds=tuple(map(_kind, kinds[id_])), **operation)
        )
    return operations


def _grouped(connection: Connection, sql: str) -> dict[UUID, list[dict[str, Any]]]:
    """Return the rows of *sql* by their column `parent`, without this column."""
    groups: dict[UUID, list[dict[str, Any]]] = defaultdict(list)
    for found in rows(connection, sql):
        columns = dict(found)
        groups[columns.pop("parent")].append(columns)
    return groups


def all_kinds(
    connection: Connection, providers: Iterable[ProviderDefinition] = ()
) -> dict[str, KindDefinition]:
    """Return all kinds by name: those stored, and those that *providers* declare.

    Of several stored definitions the newest counts; a definition in a scheme that is not retired
    comes before all others.
    """
    kinds = {
        found["name"]: _kind(found)
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


def _kind(found: Mapping[str, Any]) -> KindDefinition:
    return KindDefinition(
        name=found["name"],
        key=tuple(found["key"]),
        fields=tuple((part["name"], part["type"]) for part in found["fields"]),
        foreign=found["foreign_type"],
        indexes=tuple(map(tuple, found["indexes"])),
        unique=tuple(map(tuple, found["unique_fields"])),
        untracked=tuple(found["untracked"]),
        rules=found["item_rules"],
    )


def write_provider(connection: Connection, provider: ProviderDefinition) -> None:
    """Store the declared provider with its schemes and schedules.

    A schedule that is no longer declared is disabled; the server may then change it.
    """
    provider_id: UUID = upsert(
        connection,
        Provider,
        {
            "name": provider.name,
            "title": provider.title,
            "base_url": provider.base_url,
            "max_running": provider.max_running,
            "secrets": provider.secrets,
            "project": provider.project,
        },
        conflict=["name"],
    )["id"]
    _retire(connection, provider_id, provider.schemes)
    for scheme in provider.schemes:
        _write_scheme(connection, provider_id, scheme)
    run(
        connection,
        """UPDATE catlog.schedule SET enabled = false, origin = 'api'
           WHERE provider_id = :provider AND origin = 'file'
             AND NOT (scheme_name || '/' || name = ANY(CAST(:kept AS text[])))""",
        provider=provider_id,
        kept=[f"{schedule.scheme}/{schedule.name}" for schedule in provider.schedules],
    )
    for schedule in provider.schedules:
        _write_schedule(connection, provider_id, schedule)


def retire_provider(connection: Connection, name: str) -> None:
    """Retire the schemes and disable the schedules of a provider whose file was removed."""
    found = row(connection, "SELECT * FROM catlog.provider WHERE name = :name", name=name)
    if found:
        _retire(connection, found["id"], ())
        run(
            connection,
            "UPDATE catlog.schedule SET enabled = false WHERE provider_id = :id",
            id=found["id"],
        )


def _retire(connection: Connection, provider_id: UUID, kept: tuple[SchemeDefinition, ...]) -> None:
    run(
        connection,
        """UPDATE catlog.catalog_scheme SET retired_at = clock_timestamp()
           WHERE provider_id = :provider AND retired_at IS NULL
             AND NOT (name || ' ' || version = ANY(CAST(:kept AS text[])))""",
        provider=provider_id,
        kept=[f"{scheme.name} {scheme.version}" for scheme in kept],
    )


def _write_scheme(connection: Connection, provider_id: UUID, scheme: SchemeDefinition) -> None:
    scheme_id: UUID = upsert(
        connection,
        CatalogScheme,
        {
            "provider_id": provider_id,
            "name": scheme.name,
            "version": scheme.version,
            "max_errors": scheme.max_errors,
            "includes": scheme.includes,
            "after": scheme.after,
            "retired_at": None,
        },
        conflict=["provider_id", "name", "version"],
    )["id"]
    # An operation that is no longer declared belongs to an unused version, as `compare` ensures.
    run(
        connection,
        """DELETE FROM catlog.kind WHERE operation_id IN (
               SELECT id FROM catlog.catalog_scheme_operation
               WHERE scheme_id = :scheme AND NOT name = ANY(CAST(:kept AS text[])))""",
        scheme=scheme_id,
        kept=[operation.name for operation in scheme.operations],
    )
    run(
        connection,
        """DELETE FROM catlog.catalog_scheme_operation
           WHERE scheme_id = :scheme AND NOT name = ANY(CAST(:kept AS text[]))""",
        scheme=scheme_id,
        kept=[operation.name for operation in scheme.operations],
    )
    _note_changed_tags(connection, scheme_id, scheme.operations)
    for operation in scheme.operations:
        _write_operation(connection, scheme_id, operation)


def _note_changed_tags(
    connection: Connection, scheme_id: UUID, operations: Iterable[OperationDefinition]
) -> None:
    """Raise the provider's tags revision if stored operations get other tags.

    The heads of queues that workers remember were found with the former tags.
    """
    run(
        connection,
        """UPDATE catlog.provider p SET tags_revision = tags_revision + 1
           FROM catlog.catalog_scheme s
           WHERE s.id = :scheme AND p.id = s.provider_id AND EXISTS (
               SELECT 1 FROM catlog.catalog_scheme_operation o
               WHERE o.scheme_id = s.id
                 AND o.tags <> coalesce(CAST(:tags AS jsonb) -> o.name, '[]'))""",
        scheme=scheme_id,
        tags=orjson.dumps({operation.name: operation.tags for operation in operations}).decode(),
    )


def _write_operation(
    connection: Connection, scheme_id: UUID, operation: OperationDefinition
) -> None:
    values = asdict(operation)
    del values["kinds"]
    operation_id: UUID = upsert(
        connection,
        CatalogSchemeOperation,
        {"scheme_id": scheme_id, **values},
        conflict=["scheme_id", "name"],
    )["id"]
    run(
        connection,
        """DELETE FROM catlog.kind
           WHERE operation_id = :operation AND NOT name = ANY(CAST(:kept AS text[]))""",
        operation=operation_id,
        kept=[kind.name for kind in operation.kinds],
    )
    for kind in operation.kinds:
        upsert(
            connection,
            StoredKind,
            {
                "operation_id": operation_id,
                "name": kind.name,
                "key": kind.key,
                "fields": [{"name": name, "type": type_} for name, type_ in kind.fields],
                "foreign_type": kind.foreign,
                "indexes": kind.indexes,
                "unique_fields": kind.unique,
                "untracked": kind.untracked,
                "item_rules": kind.rules,
            },
            conflict=["operation_id", "name"],
        )


def _write_schedule(
    connection: Connection, provider_id: UUID, schedule: ScheduleDefinition
) -> None:
    """Write a schedule; its due time changes only with its cron line, time zone or `enabled`.

    A schedule of the same name that was created through the API belongs to the file from now on.
    """
    identity = {"provider_id": provider_id, "scheme_name": schedule.scheme, "name": schedule.name}
    found = row(
        connection,
        """SELECT cron, timezone, enabled, paused_at, next_due_at FROM catlog.schedule
           WHERE provider_id = :provider_id AND scheme_name = :scheme_name AND name = :name
           FOR NO KEY UPDATE""",
        **identity,
    )
    due: dt.datetime | None = None
    if found and all(
        found[name] == getattr(schedule, name) for name in ("cron", "timezone", "enabled")
    ):
        due = found["next_due_at"]
    elif schedule.enabled and not (found and found["paused_at"]):
        now = scalar(connection, "SELECT clock_timestamp()")
        due = next_due(schedule.cron, schedule.timezone, now)
    upsert(
        connection,
        StoredSchedule,
        {
            **identity,
            "cron": schedule.cron,
            "timezone": schedule.timezone,
            "arguments": schedule.arguments,
            "catch_up": schedule.catch_up,
            "enabled": schedule.enabled,
            "origin": "file",
            "next_due_at": due,
        },
        conflict=list(identity),
    )
