"""Changes of schedules: create, change, pause, resume, preview."""

import datetime as dt
from collections.abc import Mapping
from itertools import islice
from typing import Any
from uuid import UUID

import orjson

from catlog_scrapy.exceptions import NotFound, NotPossible
from catlog_scrapy.models import StoredSchedule
from catlog_scrapy.scheduling.due import due_times, next_due
from catlog_scrapy.store.queue.arguments import check_arguments
from catlog_scrapy.store.queue.catalogs import find_scheme
from catlog_scrapy.store.sql import Database, row, run, scalar, upsert


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
    """Create a schedule of a scheme and return its id.

    A disabled schedule of the same name is replaced, for example one that was removed from its
    provider file. Raises NotFound, CronError, or NotPossible for a name in use and for invalid
    arguments.
    """
    with database.begin() as connection:
        found = find_scheme(connection, provider, scheme)
        check_arguments(connection, found.provider_id, arguments)
        now = scalar(connection, "SELECT clock_timestamp()")
        made = upsert(
            connection,
            StoredSchedule,
            {
                "provider_id": found.provider_id,
                "scheme_name": scheme,
                "name": name,
                "cron": cron,
                "timezone": timezone,
                "arguments": dict(arguments),
                "catch_up": catch_up,
                "enabled": True,
                "origin": "api",
                "paused_at": None,
                "next_due_at": next_due(cron, timezone, now),
            },
            conflict=["provider_id", "scheme_name", "name"],
            where=(StoredSchedule.origin == "api") & ~StoredSchedule.enabled,
        )
    if not made:
        raise NotPossible(f"{provider}/{scheme} already has a schedule {name!r}.")
    return UUID(str(made["id"]))


def change(database: Database, schedule_id: UUID, changes: Mapping[str, Any]) -> None:
    """Change `cron`, `timezone`, `arguments`, `catch_up` or `enabled` of a schedule.

    Raises NotFound, CronError, or NotPossible for a schedule in a provider file and for invalid
    arguments.
    """
    with database.begin() as connection:
        schedule = lock(connection, schedule_id)
        if schedule["origin"] == "file":
            raise NotPossible(
                f"the schedule {schedule['name']!r} is declared in a provider file; change it there"
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
    """Pause a schedule: it is not due until it is resumed. Raises NotFound."""
    with database.begin() as connection:
        lock(connection, schedule_id)
        run(
            connection,
            """UPDATE catlog.schedule SET next_due_at = NULL,
                   paused_at = coalesce(paused_at, clock_timestamp()) WHERE id = :id""",
            id=schedule_id,
        )


def resume(database: Database, schedule_id: UUID) -> None:
    """Resume a paused schedule at its next due time. Raises NotFound."""
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
    """Return the next *limit* due times of a schedule, as if it were not paused."""
    with database.begin() as connection:
        schedule = lock(connection, schedule_id, "FOR KEY SHARE")
    return list(islice(due_times(schedule["cron"], schedule["timezone"], schedule["now"]), limit))


def provider_and_scheme(database: Database, schedule_id: UUID) -> tuple[str, str]:
    """Return the names of a schedule's provider and scheme. Raises NotFound."""
    with database.begin() as connection:
        schedule = lock(connection, schedule_id, "FOR KEY SHARE")
    return schedule["provider"], schedule["scheme_name"]


def lock(
    connection: Any, schedule_id: UUID, clause: str = "FOR NO KEY UPDATE"
) -> Mapping[str, Any]:
    """Lock a schedule and return it with its provider's name and the time. Raises NotFound."""
    found = row(
        connection,
        f"""SELECT d.*, p.name AS provider, clock_timestamp() AS now FROM catlog.schedule d
            JOIN catlog.provider p ON p.id = d.provider_id WHERE d.id = :id {clause} OF d""",
        id=schedule_id,
    )
    if found is None:
        raise NotFound(f"no schedule {schedule_id}.")
    return found
