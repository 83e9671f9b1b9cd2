"""The current picture and its history: what the views in `public` show."""

import datetime as dt
import uuid

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from catlog_scrapy.models.base import Base, Instant, Json, Key, UuidKey
from catlog_scrapy.models.catalog import one_of

# Beyond this a B-tree entry could outgrow its page.
MAX_KEY_BYTES = 1000


class Scope(Base):
    """Who is responsible for a set of records, across scheme versions and parts.

    `high_water_mark` is the `as_of` of the newest full snapshot that was published.
    """

    __tablename__ = "scope"
    __table_args__ = (UniqueConstraint("provider_id", "scheme_name", "operation_name"),)

    id: Mapped[UuidKey]
    provider_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("catlog.provider.id"))
    scheme_name: Mapped[str]
    operation_name: Mapped[str]
    high_water_mark: Mapped[Instant | None]


class StoredCursor(Base):
    """How far an operation has read a source, for each of its parts: where its next load goes on.

    `operation_id` is of one scheme version: another version reads everything again.
    """

    __tablename__ = "cursor"

    scope_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("catlog.scope.id", ondelete="CASCADE"), primary_key=True
    )
    part: Mapped[str] = mapped_column(primary_key=True)
    operation_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("catlog.catalog_scheme_operation.id")
    )
    value: Mapped[str]
    catalog_id: Mapped[uuid.UUID]


class Publication(Base):
    """The last publish that changed a provider's records of a kind: what readers' copies are of.

    Without a catalog it was a reset that deleted them. The one row of no provider and no kind says
    when a view was last made.
    """

    __tablename__ = "publication"

    provider_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    catalog_id: Mapped[uuid.UUID | None]
    published_at: Mapped[dt.datetime]


class StoredRecord(Base):
    """The newest known state of one thing. Its key is natural: an index a million rows can spare.

    `updated_at` is when this state became current; `removed_at` when it ceased to be. `as_of` is
    the load that wrote it, or the newest partial load that saw it. `read_at` is the newest load
    that read it, where its operation has a `refresh`.
    """

    __tablename__ = "record"
    __table_args__ = (
        CheckConstraint(f"octet_length(key) <= {MAX_KEY_BYTES}", name="key"),
        Index("record_created_at_idx", "created_at"),
        {"postgresql_partition_by": "LIST (kind)"},
    )

    provider_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[Key] = mapped_column(primary_key=True)
    scope_id: Mapped[uuid.UUID]
    data: Mapped[Json]
    as_of: Mapped[dt.datetime]
    created_at: Mapped[dt.datetime]
    updated_at: Mapped[dt.datetime]
    removed_at: Mapped[Instant | None]
    read_at: Mapped[Instant | None]
    catalog_id: Mapped[uuid.UUID]


class RecordVersion(Base):
    """A former state of a record: what it was from `valid_from` until `valid_to`.

    `change` says what ended it, `changed` or `removed`; `catalog_id` is the catalog that did.
    """

    __tablename__ = "record_version"
    __table_args__ = (
        one_of("change", ("changed", "removed")),
        Index("record_version_kind_valid_to_idx", "kind", "valid_to"),
    )

    provider_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[Key] = mapped_column(primary_key=True)
    valid_from: Mapped[dt.datetime] = mapped_column(primary_key=True)
    valid_to: Mapped[dt.datetime]
    data: Mapped[Json]
    change: Mapped[str]
    catalog_id: Mapped[uuid.UUID]
