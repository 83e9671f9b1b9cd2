"""Schedules that are kept here, not in a provider file; and all of them paused and looked ahead."""

import datetime as dt
from collections.abc import Mapping
from itertools import islice
from typing import Any
from uuid import UUID

import orjson

from catlog_scrapy.exceptions import NotFound, NotPossible
from catlog_scrapy.scheduling.due import due_times, next_due
from catlog_scrapy.store.queue.arguments import check_arguments
from catlog_scrapy.store.queue.catalogs import find_scheme
from catlog_scrapy.store.sql import Database, row, run


def create(
    database: Database,
    provider: str,
    scheme: str,
    name: str,
    *,
    cron: str,
    timezone: str,
    arguments: Mapping[str, str],
    catch_up: str,
) -> UUID:
    """A new schedule of a scheme.

    It takes the place of a disabled one of its name, as one that left its provider file. Raises
    NotFound, CronError, or NotPossible for a known name and for arguments that a load cannot have.
    """
    with database.begin() as connection:
        found = find_scheme(connection, provider, scheme)
        check_arguments(connection, found["provider_id"], arguments)
        now = row(connection, "SELECT clock_timestamp() AS now")
        made = row(
            connection,
            """INSERT INTO catlog.schedule (provider_id, scheme_name, name, cron, timezone,
                   arguments, catch_up, origin, next_due_at)
               VALUES (:provider, :scheme, :name, :cron, :timezone, CAST(:arguments AS jsonb),
                   :catch_up, 'api', :due)
               ON CONFLICT (provider_id, scheme_name, name) DO UPDATE SET
                   cron = excluded.cron, timezone = excluded.timezone,
                   arguments = excluded.arguments, catch_up = excluded.catch_up, origin = 'api',
                   enabled = true, paused_at = NULL, next_due_at = excluded.next_due_at
                   WHERE schedule.origin = 'api' AND NOT schedule.enabled
               RETURNING id""",
            provider=found["provider_id"],
            scheme=scheme,
            name=name,
            cron=cron,
            timezone=timezone,
            arguments=orjson.dumps(dict(arguments)).decode(),
            catch_up=catch_up,
            due=next_due(cron, timezone, now["now"]) if now else None,
        )
    if made is None:
        raise NotPossible(f"{provider}/{scheme} has a schedule {name!r} already.")
    return UUID(str(made["id"]))


def change(database: Database, schedule_id: UUID, changes: Mapping[str, Any]) -> None:
    """Change `cron`, `timezone`, `arguments`, `catch_up` or `enabled` of a schedule kept here.

    Raises NotFound, CronError, or NotPossible for one that a provider file declares, and for
    arguments that a load cannot have.
    """
    with database.begin() as connection:
        schedule = lock(connection, schedule_id)
        if schedule["origin"] == "file":
            raise NotPossible(
                f"the schedule {schedule['name']!r} is declared in a provider file: change it there"
                " and run scrapy apply, or pause it here."
            )
        now = {**schedule, **changes}
        check_arguments(connection, schedule["provider_id"], changes.get("arguments", {}))
        moved = any(now[name] != schedule[name] for name in ("cron", "timezone", "enabled"))
        due = next_due(now["cron"], now["timezone"], schedule["now"])
        run(
            connection,
            """UPDATE catlog.schedule SET cron = :cron, timezone = :timezone,
                   arguments = CAST(:arguments AS jsonb), catch_up = :catch_up, enabled = :enabled,
                   next_due_at = CASE WHEN paused_at IS NOT NULL OR NOT :enabled THEN NULL
                       WHEN :moved THEN :due ELSE next_due_at END
               WHERE id = :id""",
            id=schedule_id,
            cron=now["cron"],
            timezone=now["timezone"],
            arguments=orjson.dumps(now["arguments"]).decode(),
            catch_up=now["catch_up"],
            enabled=now["enabled"],
            moved=moved,
            due=due,
        )


def pause(database: Database, schedule_id: UUID) -> None:
    """Let nothing of a schedule be due until it is resumed. Raises NotFound."""
    with database.begin() as connection:
        lock(connection, schedule_id)
        run(
            connection,
            """UPDATE catlog.schedule SET next_due_at = NULL,
                   paused_at = coalesce(paused_at, clock_timestamp()) WHERE id = :id""",
            id=schedule_id,
        )


def resume(database: Database, schedule_id: UUID) -> None:
    """Let a paused schedule go on with its next due time. Raises NotFound."""
    with database.begin() as connection:
        schedule = lock(connection, schedule_id)
        if schedule["paused_at"] is None:
            return
        due = next_due(schedule["cron"], schedule["timezone"], schedule["now"])
        run(
            connection,
            """UPDATE catlog.schedule SET paused_at = NULL,
                   next_due_at = CASE WHEN enabled THEN CAST(:due AS timestamptz) END
               WHERE id = :id""",
            id=schedule_id,
            due=due,
        )


def preview(database: Database, schedule_id: UUID, limit: int) -> list[dt.datetime]:
    """The next *limit* times at which a schedule is due, or would be if it were not paused."""
    with database.begin() as connection:
        schedule = lock(connection, schedule_id, "FOR KEY SHARE")
    return list(islice(due_times(schedule["cron"], schedule["timezone"], schedule["now"]), limit))


def provider_and_scheme(database: Database, schedule_id: UUID) -> tuple[str, str]:
    """Whose a schedule is: provider and scheme. Raises NotFound."""
    with database.begin() as connection:
        schedule = lock(connection, schedule_id, "FOR KEY SHARE")
    return schedule["provider"], schedule["scheme_name"]


def lock(
    connection: Any, schedule_id: UUID, clause: str = "FOR NO KEY UPDATE"
) -> Mapping[str, Any]:
    """Lock a schedule and return it, with the provider's name and the time. Raises NotFound."""
    found = row(
        connection,
        f"""SELECT d.*, p.name AS provider, clock_timestamp() AS now FROM catlog.schedule d
            JOIN catlog.provider p ON p.id = d.provider_id WHERE d.id = :id {clause} OF d""",
        id=schedule_id,
    )
    if found is None:
        raise NotFound(f"no schedule {schedule_id}.")
    return found
