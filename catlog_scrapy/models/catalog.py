"""The queue: catalogs, instances, attempts."""

import datetime as dt
import uuid

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Identity,
    Index,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from catlog_scrapy.models.base import (
    Base,
    Big,
    BigNumber,
    CreatedAt,
    Instant,
    Json,
    TimeOrderedKey,
    UuidKey,
)

CATALOG_STATES = (
    "waiting",
    "loading",
    "publishing",
    "loaded",
    "failed",
    "cancelled",
    "skipped",
)
INSTANCE_STATES = ("new", "running", "done", "failed", "cancelled")
OUTCOMES = ("done", "failed", "incomplete", "lost", "timed_out", "cancelled", "released")


def one_of(column: str, words: tuple[str, ...]) -> CheckConstraint:
    """Return the constraint that *column* has one of *words*."""
    listed = ", ".join(f"'{word}'" for word in words)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


class Catalog(Base):
    """A run of a scheme. Only a load that `is_full` may remove records.

    `as_of` is the time for which its data is valid. `operation` names the only operation of a
    partial load. `first_error` is the error of the first failed attempt, `error` says why the
    catalog ended. `published` counts the published changes by kind. `job` is the id that a client
    of scrapyd's API chose, `settings` are Scrapy settings for this load alone, `project_version` is
    the only version of the project that may run the load. Record tables refer to the catalog by its
    `number`. At `prune_at`, once the catalog has ended, pruning looks at it next.
    """

    __tablename__ = "catalog"
    __table_args__ = (
        UniqueConstraint("schedule_id", "due_at"),
        one_of("state", CATALOG_STATES),
        Index(
            "catalog_open_idx",
            "scheme_id",
            postgresql_where=text("state IN ('waiting', 'loading', 'publishing')"),
        ),
        Index(
            "catalog_publishing_idx",
            "publish_at",
            postgresql_where=text("state = 'publishing'"),
        ),
        Index("catalog_parent_id_idx", "parent_id", postgresql_where=text("parent_id IS NOT NULL")),
        Index("catalog_created_at_idx", "created_at"),
        Index("catalog_scheme_idx", "scheme_id", "created_at"),
        Index("catalog_failed_idx", "created_at", postgresql_where=text("state = 'failed'")),
        Index(
            "catalog_schedule_open_idx",
            "schedule_id",
            postgresql_where=text("state IN ('waiting', 'loading', 'publishing')"),
        ),
        Index(
            "catalog_ended_idx",
            "scheme_id",
            "state",
            "finished_at",
            postgresql_where=text("finished_at IS NOT NULL"),
        ),
        Index("catalog_prune_idx", "prune_at", postgresql_where=text("finished_at IS NOT NULL")),
    )

    id: Mapped[UuidKey]
    number: Mapped[BigNumber]
    provider_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("catlog.provider.id"))
    scheme_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("catlog.catalog_scheme.id"))
    parent_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("catlog.catalog.id"))
    schedule_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("catlog.schedule.id"))
    due_at: Mapped[Instant | None]
    as_of: Mapped[Instant | None]
    arguments: Mapped[Json] = mapped_column(server_default="{}")
    operation: Mapped[str | None]
    is_full: Mapped[bool] = mapped_column(server_default=text("true"))
    origin: Mapped[str]
    job: Mapped[str | None] = mapped_column(unique=True)
    settings: Mapped[Json] = mapped_column(server_default="{}")
    project_version: Mapped[str | None]
    priority: Mapped[int] = mapped_column(server_default="0")
    state: Mapped[str] = mapped_column(server_default="waiting")
    errors: Mapped[int] = mapped_column(server_default="0")
    first_error: Mapped[str | None]
    error: Mapped[str | None]
    published: Mapped[Json | None]
    publish_failures: Mapped[int] = mapped_column(server_default="0")
    publish_at: Mapped[Instant | None]
    purged_at: Mapped[Instant | None]
    prune_at: Mapped[Instant] = mapped_column(server_default=text("'epoch'::timestamptz"))
    created_at: Mapped[CreatedAt]
    started_at: Mapped[Instant | None]
    finished_at: Mapped[Instant | None]


class CatalogSchemeOperationInstance(Base):
    """A task of a catalog: an operation, for one of its parts.

    `attempt` is the number of the latest attempt. `node` is set from the claim until the slot is
    freed: after a cancellation the crawl still runs until its next heartbeat. `lost` counts
    consecutive lost attempts. `position` is the age in the queue; `requeued` says that the instance
    was in the queue before. `available_at` is the time from
    which the instance can be claimed or, while it runs, the time of the claim.
    """

    __tablename__ = "catalog_scheme_operation_instance"
    __table_args__ = (
        UniqueConstraint("catalog_id", "operation_id", "part", name="instance_part_key"),
        one_of("state", INSTANCE_STATES),
        # The claim reads only the head of this index, however many instances have finished. To its
        # passed positions no instance returns: that is what `instance_requeued_idx` is for.
        Index(
            "instance_queue_idx",
            "provider_id",
            text("priority DESC"),
            "position",
            postgresql_where=text("state = 'new' AND NOT requeued"),
        ),
        Index(
            "instance_requeued_idx",
            "provider_id",
            text("priority DESC"),
            "position",
            postgresql_where=text("state = 'new' AND requeued"),
        ),
        # The check for the last open instance of a catalog reads the end of this index.
        Index(
            "instance_open_idx",
            "catalog_id",
            "position",
            postgresql_where=text("state IN ('new', 'running')"),
        ),
        # Without lease_expires_at: a heartbeat must stay a heap-only (HOT) update.
        Index(
            "instance_held_idx",
            "provider_id",
            "available_at",
            postgresql_where=text("node IS NOT NULL"),
        ),
    )

    id: Mapped[TimeOrderedKey]
    catalog_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("catlog.catalog.id"))
    operation_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("catlog.catalog_scheme_operation.id")
    )
    provider_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("catlog.provider.id"))
    part: Mapped[str] = mapped_column(server_default="")
    arguments: Mapped[Json] = mapped_column(server_default="{}")
    priority: Mapped[int] = mapped_column(server_default="0")
    position: Mapped[int] = mapped_column(BigInteger, Identity())
    state: Mapped[str] = mapped_column(server_default="new")
    requeued: Mapped[bool] = mapped_column(server_default=text("false"))
    attempt: Mapped[int] = mapped_column(server_default="0")
    failures: Mapped[int] = mapped_column(server_default="0")
    lost: Mapped[int] = mapped_column(server_default="0")
    available_at: Mapped[dt.datetime] = mapped_column(server_default=text("clock_timestamp()"))
    lease_expires_at: Mapped[Instant | None]
    node: Mapped[str | None]


class InstanceAttempt(Base):
    """An attempt at an instance; `outcome` is NULL while it runs.

    `as_of` is the time for which its data is valid unless the catalog has a time of its own: the
    start by a clock that never goes back, whatever the server's clock does.
    `limits` are the tolerances and time limits of the attempt, `stats` are Scrapy's statistics.
    `log` is a file on `node`. `begun_at` is the time when the process `pid`, if it has one of its
    own, began. `accepted`, `rejected` and `dropped` count items. `read_from` and `read_to` are
    cursors.
    """

    __tablename__ = "instance_attempt"
    __table_args__ = (
        one_of("outcome", OUTCOMES),
        Index(
            "instance_attempt_finished_at_idx",
            "finished_at",
            postgresql_where=text("finished_at IS NOT NULL"),
        ),
    )

    instance_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("catlog.catalog_scheme_operation_instance.id"), primary_key=True
    )
    attempt: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    node: Mapped[str]
    pid: Mapped[int | None]
    started_at: Mapped[CreatedAt]
    as_of: Mapped[dt.datetime] = mapped_column(server_default=text("catlog.reading_time()"))
    begun_at: Mapped[Instant | None]
    finished_at: Mapped[Instant | None]
    deadline_at: Mapped[Instant]
    outcome: Mapped[str | None]
    error: Mapped[str | None]
    log: Mapped[str | None]
    limits: Mapped[Json] = mapped_column(server_default="{}")
    stats: Mapped[Json | None]
    accepted: Mapped[Big] = mapped_column(server_default="0")
    rejected: Mapped[Big] = mapped_column(server_default="0")
    dropped: Mapped[Big] = mapped_column(server_default="0")
    read_from: Mapped[str | None]
    read_to: Mapped[str | None]
