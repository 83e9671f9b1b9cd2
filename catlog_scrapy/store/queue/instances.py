"""Instances of a catalog, made when the catalog starts."""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import orjson
from sqlalchemy import Connection

from catlog_scrapy.scheduling.argument_templates import DUE_AT, render
from catlog_scrapy.store.queue.catalog_states import LockedCatalog
from catlog_scrapy.store.record_tables.reading import current_records
from catlog_scrapy.store.schemes import all_kinds
from catlog_scrapy.store.sql import rows, run

DUE_AT_PLACEHOLDER = "{" + DUE_AT
SOME_TIME = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


class CannotLoad(Exception):
    """A catalog cannot start; the message becomes its error.

    Raised by `insert_instances`, `require_renderable` and the start of a catalog.
    """


def insert_instances(connection: Connection, catalog: LockedCatalog) -> None:
    """Insert an instance for each operation and part, or raise CannotLoad and insert nothing."""
    plans = InstancePlans(connection, [catalog])
    insert(connection, plans.instances_of(catalog))


class InstancePlans:
    """Instances of catalogs that start together, with what their catalogs share read once."""

    def __init__(self, connection: Connection, catalogs: Sequence[LockedCatalog]) -> None:
        self.connection = connection
        self.operations: dict[UUID, list[Mapping[str, Any]]] = {}
        for operation in rows(
            connection,
            """SELECT * FROM catlog.catalog_scheme_operation
               WHERE scheme_id = ANY(CAST(:schemes AS uuid[])) ORDER BY name""",
            schemes=list({str(catalog.scheme_id) for catalog in catalogs}),
        ):
            self.operations.setdefault(operation["scheme_id"], []).append(operation)
        self.timezones = _timezones(connection, catalogs)

    def instances_of(self, catalog: LockedCatalog) -> list[dict[str, Any]]:
        """Return an instance for each operation and part of a catalog. Raises CannotLoad."""
        operations = [
            operation
            for operation in self.operations.get(catalog.scheme_id, ())
            if catalog.operation in (None, operation["name"])
        ]
        if not operations:
            raise CannotLoad("nothing to load: the scheme has no operation")
        instant: dt.datetime = catalog.due_at or catalog.created_at
        due_at = instant.astimezone(ZoneInfo(self.timezones.get(catalog.id, "UTC")))
        given = _render_given(catalog.arguments, due_at)
        return [
            {
                "catalog": str(catalog.id),
                "operation": str(operation["id"]),
                "provider": str(catalog.provider_id),
                "part": part,
                "arguments": orjson.dumps(
                    {
                        **_render(
                            operation["arguments"],
                            {**fields, "due_at": due_at},
                            leave_out=_is_standalone(catalog, operation),
                        ),
                        **catalog.arguments,
                        **given,
                    }
                ).decode(),
                "priority": catalog.priority,
            }
            for operation in operations
            for part, fields in _parts(self.connection, catalog, operation)
        ]


def require_renderable(arguments: Mapping[str, str]) -> None:
    """Raise CannotLoad for an argument that cannot be rendered with a due time."""
    _render_given(arguments, SOME_TIME)


def _render_given(arguments: Mapping[str, str], due_at: dt.datetime) -> dict[str, str]:
    """Render the *arguments* that contain the due time; in the others a brace is plain text."""
    templates = {name: value for name, value in arguments.items() if DUE_AT_PLACEHOLDER in value}
    return _render(templates, {DUE_AT: due_at})


def _is_standalone(catalog: LockedCatalog, operation: Mapping[str, Any]) -> bool:
    """Return whether the catalog has a standalone argument, so that the operation has no parts."""
    return not set(operation["standalone_arguments"]).isdisjoint(catalog.arguments)


def _render(
    templates: Mapping[str, str], values: Mapping[str, Any], *, leave_out: bool = False
) -> dict[str, str]:
    """Render *templates*; with *leave_out*, omit those with a placeholder missing in *values*."""
    rendered = {}
    for name, template in templates.items():
        try:
            rendered[name] = render(str(template), values)
        except (LookupError, ValueError, AttributeError, TypeError) as error:
            if leave_out and isinstance(error, KeyError):
                continue
            raise CannotLoad(
                f"the argument {name} = {template!r} cannot be rendered:"
                f" {type(error).__name__} {error}"
            ) from error
    return rendered


def insert(connection: Connection, instances: Sequence[Mapping[str, Any]]) -> None:
    """Insert *instances*, of which there is at least one."""
    columns = {name: [instance[name] for instance in instances] for name in instances[0]}
    run(
        connection,
        """INSERT INTO catlog.catalog_scheme_operation_instance
               (catalog_id, operation_id, provider_id, part, arguments, priority)
           SELECT catalog, operation, provider, part, CAST(arguments AS jsonb), priority
           FROM unnest(CAST(:catalog AS uuid[]), CAST(:operation AS uuid[]),
               CAST(:provider AS uuid[]), CAST(:part AS text[]), CAST(:arguments AS text[]),
               CAST(:priority AS int[]))
               AS given (catalog, operation, provider, part, arguments, priority)""",
        **columns,
    )


def _timezones(connection: Connection, catalogs: Sequence[LockedCatalog]) -> dict[UUID, str]:
    """Return the time zone of each catalog's schedule.

    A catalog without a schedule is due at its creation. A sub-catalog has the schedule of the
    catalog that includes it.
    """
    found = rows(
        connection,
        """WITH RECURSIVE up AS (
               SELECT id, parent_id, schedule_id FROM catlog.catalog
               WHERE id = ANY(CAST(:ids AS uuid[]))
               UNION ALL
               SELECT up.id, c.parent_id, c.schedule_id
               FROM catlog.catalog c JOIN up ON c.id = up.parent_id)
           SELECT up.id, s.timezone FROM up JOIN catlog.schedule s ON s.id = up.schedule_id""",
        ids=[str(catalog.id) for catalog in catalogs],
    )
    return {catalog["id"]: catalog["timezone"] for catalog in found}


def _parts(
    connection: Connection, catalog: LockedCatalog, operation: Mapping[str, Any]
) -> list[tuple[str, dict[str, Any]]]:
    """Return the parts of an operation with their fields, among them `part` itself.

    An argument with the name of a field selects parts; a standalone argument replaces all parts.
    Raises CannotLoad if no part is left.
    """
    for_each = operation["for_each"]
    if for_each is None or _is_standalone(catalog, operation):
        return [("", {})]
    if isinstance(for_each, str):
        kind = all_kinds(connection).get(for_each)
        found = (
            current_records(
                connection,
                kind,
                "_provider = (SELECT number FROM catlog.provider WHERE id = :provider)",
                provider=catalog.provider_id,
            )
            if kind
            else []
        )
        parts = [(record.key, {**record.fields, "part": record.key}) for record in found]
    else:
        parts = [(word, {"part": word}) for word in for_each]
    selected = [
        (part, fields)
        for part, fields in parts
        if all(str(fields.get(name, value)) == value for name, value in catalog.arguments.items())
    ]
    if not selected and parts:
        asked_for = ", ".join(f"{name}={value}" for name, value in catalog.arguments.items())
        raise CannotLoad(
            f"nothing to load: {operation['name']} runs for each of {len(parts)} {for_each!r},"
            f" and none has {asked_for}"
        )
    if not selected:
        raise CannotLoad(
            f"nothing to load: {operation['name']} runs for each of {for_each!r}, and there are"
            " none; load those first"
        )
    return selected
