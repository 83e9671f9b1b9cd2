"""Changes of schedules: create, change, pause, resume, preview."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection

from catlog_scrapy.exceptions import NotFound, NotPossible
from catlog_scrapy.models import StoredSchedule
from catlog_scrapy.scheduling.due import due_times, next_due
from catlog_scrapy.store.queue.arguments import check_arguments
from catlog_scrapy.store.queue.catalogs import find_scheme
from catlog_scrapy.store.queue.schedules.locks import LockedSchedule
from catlog_scrapy.store.sql import Database, run, scalar, upsert


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
        if schedule.origin == "file":
            raise NotPossible(
                f"the schedule {schedule.name!r} is declared in a provider file; change it there"
                " and run scrapy apply, or pause it here."
            )
        changed = replace(schedule, **changes)
        check_arguments(connection, schedule.provider_id, changes.get("arguments", {}))
        moved = any(
            getattr(changed, name) != getattr(schedule, name)
            for name in ("cron", "timezone", "enabled")
        )
        due = next_due(changed.cron, changed.timezone, schedule.now)
        run(
            connection,
            """UPDATE catlog.schedule SET cron = :cron, timezone = :timezone,
                   arguments = CAST(:arguments AS jsonb), catch_up = :catch_up, enabled = :enabled,
                   next_due_at = CASE WHEN paused_at IS NOT NULL OR NOT :enabled THEN NULL
                       WHEN :moved THEN :due ELSE next_due_at END
               WHERE id = :id""",
            id=schedule_id,
            cron=changed.cron,
            timezone=changed.timezone,
            arguments=orjson.dumps(changed.arguments).decode(),
            catch_up=changed.catch_up,
            enabled=changed.enabled,
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
        if schedule.paused_at is None:
            return
        due = next_due(schedule.cron, schedule.timezone, schedule.now)
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
    return list(islice(due_times(schedule.cron, schedule.timezone, schedule.now), limit))


def provider_and_scheme(database: Database, schedule_id: UUID) -> tuple[str, str]:
    """Return the names of a schedule's provider and scheme. Raises NotFound."""
    with database.begin() as connection:
        schedule = lock(connection, schedule_id, "FOR KEY SHARE")
        provider: str = scalar(
            connection, "SELECT name FROM catlog.provider WHERE id = :id", id=schedule.provider_id
        )
    return provider, schedule.scheme_name


def lock(
    connection: Connection, schedule_id: UUID, clause: str = "FOR NO KEY UPDATE"
) -> LockedSchedule:
    """Lock a schedule. Raises NotFound."""
    found = LockedSchedule.select(connection, f"id = :id {clause}", id=schedule_id)
    if not found:
        raise NotFound(f"no schedule {schedule_id}.")
    return found[0]
