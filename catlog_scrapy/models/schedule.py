"""Schedules of schemes."""

import uuid

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from catlog_scrapy.models.base import Base, Instant, Json, UuidKey


class StoredSchedule(Base):
    """A named cron line for a scheme. Provider, scheme and name are its identity.

    All its due times are one series, whatever is edited, so that no due time makes two catalogs.
    `origin` is `file` for a schedule that `apply` reads from a provider file, `api` for a schedule
    that exists only in the database. While `paused_at` is set, the schedule is never due.
    """

    __tablename__ = "schedule"
    __table_args__ = (
        UniqueConstraint("provider_id", "scheme_name", "name"),
        CheckConstraint("catch_up IN ('latest', 'none')", name="catch_up"),
        CheckConstraint("origin IN ('file', 'api')", name="origin"),
        Index("schedule_due_idx", "next_due_at", postgresql_where=text("enabled")),
    )

    id: Mapped[UuidKey]
    provider_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("catlog.provider.id"))
    scheme_name: Mapped[str]
    name: Mapped[str]
    cron: Mapped[str]
    timezone: Mapped[str] = mapped_column(server_default="UTC")
    arguments: Mapped[Json] = mapped_column(server_default="{}")
    catch_up: Mapped[str] = mapped_column(server_default="latest")
    enabled: Mapped[bool] = mapped_column(server_default=text("true"))
    origin: Mapped[str] = mapped_column(server_default="file")
    paused_at: Mapped[Instant | None]
    next_due_at: Mapped[Instant | None]
