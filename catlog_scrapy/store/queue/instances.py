"""What a catalog consists of: its instances, or its sub-catalogs. Fixed when it starts."""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any
from zoneinfo import ZoneInfo

import orjson
from sqlalchemy import Connection

from catlog_scrapy.scheduling.argument_templates import DUE_AT, render
from catlog_scrapy.store.sql import row, rows, run

DUE_AT_PLACEHOLDER = "{" + DUE_AT
SOME_TIME = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


class CannotLoad(Exception):
    """A catalog has nothing to load, or not what its arguments need. It fails with this text."""


def insert_instances(connection: Connection, catalog: Mapping[str, Any]) -> None:
    """Make one instance for each operation and part. Raises CannotLoad, having made none."""
    operations = rows(
        connection,
        """SELECT * FROM catlog.catalog_scheme_operation
           WHERE scheme_id = :scheme AND (CAST(:only AS text) IS NULL OR name = :only)
           ORDER BY name""",
        scheme=catalog["scheme_id"],
        only=catalog["operation"],
    )
    if not operations:
        raise CannotLoad("nothing to load: the scheme has no operation")
    due_at = _local_due_at(connection, catalog)
    given = _fill_given(catalog["arguments"], due_at)
    instances = [
        {
            "catalog": catalog["id"],
            "operation": operation["id"],
            "provider": catalog["provider_id"],
            "part": part,
            "arguments": orjson.dumps(
                {
                    **_fill(
                        operation["arguments"],
                        {**fields, "due_at": due_at},
                        leave_out=_is_standalone(catalog, operation),
                    ),
                    **catalog["arguments"],
                    **given,
                }
            ).decode(),
            "priority": catalog["priority"],
        }
        for operation in operations
        for part, fields in _parts(connection, catalog, operation)
    ]
    _insert(connection, instances)


def require_renderable(arguments: Mapping[str, str]) -> None:
    """Raise CannotLoad for an argument of a load that no due time can fill in."""
    _fill_given(arguments, SOME_TIME)


def _fill_given(arguments: Mapping[str, str], due_at: dt.datetime) -> dict[str, str]:
    """Those of *arguments* that name the due time, filled in; in others a brace is a brace."""
    templates = {name: value for name, value in arguments.items() if DUE_AT_PLACEHOLDER in value}
    return _fill(templates, {DUE_AT: due_at})


def _is_standalone(catalog: Mapping[str, Any], operation: Mapping[str, Any]) -> bool:
    """Whether the catalog's arguments say all that the operation needs, so that it has no parts."""
    return not set(operation["standalone_arguments"]).isdisjoint(catalog["arguments"])


def _fill(
    templates: Mapping[str, str], values: Mapping[str, Any], *, leave_out: bool = False
) -> dict[str, str]:
    """*templates* filled in; with *leave_out*, without those that name more than *values* has."""
    filled = {}
    for name, template in templates.items():
        try:
            filled[name] = render(str(template), values)
        except (LookupError, ValueError, AttributeError, TypeError) as error:
            if leave_out and isinstance(error, KeyError):
                continue
            raise CannotLoad(
                f"the argument {name} = {template!r} cannot be filled in:"
                f" {type(error).__name__} {error}"
            ) from error
    return filled


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


def _local_due_at(connection: Connection, catalog: Mapping[str, Any]) -> dt.datetime:
    """The due time in its schedule's time zone; a catalog made by hand is due when made.

    A sub-catalog's schedule is that of the catalog that includes it.
    """
    schedule = row(
        connection,
        """WITH RECURSIVE up AS (
               SELECT parent_id, schedule_id FROM catlog.catalog WHERE id = :id
               UNION ALL
               SELECT c.parent_id, c.schedule_id
               FROM catlog.catalog c JOIN up ON c.id = up.parent_id)
           SELECT s.timezone FROM up JOIN catlog.schedule s ON s.id = up.schedule_id""",
        id=catalog["id"],
    )
    instant: dt.datetime = catalog["due_at"] or catalog["created_at"]
    return instant.astimezone(ZoneInfo(schedule["timezone"] if schedule else "UTC"))


def _parts(
    connection: Connection, catalog: Mapping[str, Any], operation: Mapping[str, Any]
) -> list[tuple[str, dict[str, Any]]]:
    """The parts of an operation with their fields, which include the part itself as `part`.

    An argument that names a field narrows them; one that is standalone stands for them all. Raises
    CannotLoad where there are none.
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
            provider=catalog["provider_id"],
            kind=for_each,
        )
        parts = [(one["key"], {**one["data"], "part": one["key"]}) for one in found]
    else:
        parts = [(word, {"part": word}) for word in for_each]
    asked = [
        (part, fields)
        for part, fields in parts
        if all(
            str(fields.get(name, value)) == value for name, value in catalog["arguments"].items()
        )
    ]
    if not asked and parts:
        narrowed = ", ".join(f"{name}={value}" for name, value in catalog["arguments"].items())
        raise CannotLoad(
            f"nothing to load: {operation['name']} runs for each of {len(parts)} {for_each!r},"
            f" and none has {narrowed}"
        )
    if not asked:
        raise CannotLoad(
            f"nothing to load: {operation['name']} runs for each of {for_each!r}, and there are"
            " none; load those first"
        )
    return asked
