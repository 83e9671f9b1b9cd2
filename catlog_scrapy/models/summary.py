"""Remains of pruned catalogs."""

import datetime as dt
import uuid

from sqlalchemy import ForeignKey
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import DateTime

from catlog_scrapy.models.base import Base, Big, Instant, Json


class CatalogSummary(Base):
    """The pruned catalogs of a scheme that were made on a day (UTC), in numbers.

    `loaded`, `failed`, `cancelled` and `skipped` count catalogs by state. `accepted`, `rejected`
    and `dropped` count items of the done attempts, `published` the changes of records.
    """

    __tablename__ = "catalog_summary"

    scheme_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("catlog.catalog_scheme.id"), primary_key=True
    )
    day: Mapped[dt.date] = mapped_column(primary_key=True)
    first_number: Mapped[Big]
    last_number: Mapped[Big]
    first_created_at: Mapped[Instant]
    last_finished_at: Mapped[Instant]
    loaded: Mapped[int]
    failed: Mapped[int]
    cancelled: Mapped[int]
    skipped: Mapped[int]
    instances: Mapped[Big]
    attempts: Mapped[Big]
    accepted: Mapped[Big]
    rejected: Mapped[Big]
    dropped: Mapped[Big]
    published: Mapped[Json]


class PrunedDueTime(Base):
    """The due times of a schedule on a day (UTC) whose catalogs were pruned.

    A due time makes one catalog, also after that catalog is gone.
    """

    __tablename__ = "pruned_due_time"

    schedule_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("catlog.schedule.id", ondelete="CASCADE"), primary_key=True
    )
    day: Mapped[dt.date] = mapped_column(primary_key=True)
    times: Mapped[list[dt.datetime]] = mapped_column(ARRAY(DateTime(timezone=True)))
