"""Instances of a catalog, made when the catalog starts."""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any
from zoneinfo import ZoneInfo

import orjson
from sqlalchemy import Connection

from catlog_scrapy.scheduling.argument_templates import DUE_AT, render
from catlog_scrapy.store.queue.catalog_states import LockedCatalog
from catlog_scrapy.store.sql import row, rows, run

DUE_AT_PLACEHOLDER = "{" + DUE_AT
SOME_TIME = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


class CannotLoad(Exception):
    """A catalog cannot start; the message becomes its error.

    Raised by `insert_instances`, `require_renderable` and the start of a catalog.
    """


def insert_instances(connection: Connection, catalog: LockedCatalog) -> None:
    """Insert an instance for each operation and part, or raise CannotLoad and insert nothing."""
    operations = rows(
        connection,
        """SELECT * FROM catlog.catalog_scheme_operation
           WHERE scheme_id = :scheme AND (CAST(:only AS text) IS NULL OR name = :only)
           ORDER BY name""",
        scheme=catalog.scheme_id,
        only=catalog.operation,
    )
    if not operations:
        raise CannotLoad("nothing to load: the scheme has no operation")
    due_at = _local_due_at(connection, catalog)
    given = _render_given(catalog.arguments, due_at)
    instances = [
        {
            "catalog": catalog.id,
            "operation": operation["id"],
            "provider": catalog.provider_id,
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
        for part, fields in _parts(connection, catalog, operation)
    ]
    _insert(connection, instances)


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


def _insert(connection: Connection, instances: Sequence[Mapping[str, Any]]) -> None:
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


def _local_due_at(connection: Connection, catalog: LockedCatalog) -> dt.datetime:
    """Return the due time in the time zone of the schedule.

    A catalog without a schedule is due at its creation. A sub-catalog has the schedule of the
    catalog that includes it.
    """
    schedule = row(
        connection,
        """WITH RECURSIVE up AS (
               SELECT parent_id, schedule_id FROM catlog.catalog WHERE id = :id
               UNION ALL
               SELECT c.parent_id, c.schedule_id
               FROM catlog.catalog c JOIN up ON c.id = up.parent_id)
           SELECT s.timezone FROM up JOIN catlog.schedule s ON s.id = up.schedule_id""",
        id=catalog.id,
    )
    instant: dt.datetime = catalog.due_at or catalog.created_at
    return instant.astimezone(ZoneInfo(schedule["timezone"] if schedule else "UTC"))


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
        found = rows(
            connection,
            """SELECT key, data FROM catlog.record
               WHERE provider_id = :provider AND kind = :kind AND removed_at IS NULL
               ORDER BY key""",
            provider=catalog.provider_id,
            kind=for_each,
        )
        parts = [(record["key"], {**record["data"], "part": record["key"]}) for record in found]
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
