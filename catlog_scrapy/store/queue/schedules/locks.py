"""Locked schedules."""

import datetime as dt
from dataclasses import dataclass
from typing import Any, Self
from uuid import UUID

from sqlalchemy import Connection

from catlog_scrapy.store.sql import rows


@dataclass(frozen=True)
class LockedSchedule:
    """A schedule whose row is locked to the end of the transaction.

    `now` is the database's time when the row was read.
    """

    id: UUID
    provider_id: UUID
    scheme_name: str
    name: str
    cron: str
    timezone: str
    arguments: dict[str, str]
    catch_up: str
    enabled: bool
    origin: str
    paused_at: dt.datetime | None
    next_due_at: dt.datetime | None
    now: dt.datetime

    @classmethod
    def select(cls, connection: Connection, condition: str, **values: Any) -> list[Self]:
        """Return the schedules for which *condition*, which ends with a lock, is true."""
        found = rows(
            connection,
            f"""SELECT id, provider_id, scheme_name, name, cron, timezone, arguments, catch_up,
                    enabled, origin, paused_at, next_due_at, clock_timestamp() AS now
                FROM catlog.schedule WHERE {condition}""",
            **values,
        )
        return [cls(**schedule) for schedule in found]
