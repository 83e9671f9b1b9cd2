"""Records and their history, which the views in `public` show."""

import datetime as dt
import uuid

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from catlog_scrapy.models.base import Base, Instant, Json, Key, UuidKey
from catlog_scrapy.models.catalog import one_of

# A larger key could make a B-tree entry outgrow its page.
MAX_KEY_BYTES = 1000


class Scope(Base):
    """The operation that answers for a set of records, across scheme versions and parts.

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
    """The position in a source from which an operation's next load of a part resumes.

    `operation_id` belongs to one scheme version: another version reads everything again.
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
    """The last publication that changed a provider's records of a kind: readers' change stamp.

    Without a catalog, it was a reset that deleted the records. The row with the zero UUID as
    provider has the time when a view was last made.
    """

    __tablename__ = "publication"

    provider_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    catalog_id: Mapped[uuid.UUID | None]
    published_at: Mapped[dt.datetime]


class StoredRecord(Base):
    """The current state of a thing. The natural key saves a second index over all rows.

    `updated_at` is the time when this state became current, `removed_at` the time when the thing
    was removed. `as_of` is that of the load that wrote the state, or of the newest partial load
    that saw the key. `read_at` is that of the newest load that read the record, if its operation
    has a `refresh`.
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
    """A former state of a record, valid from `valid_from` until `valid_to`.

    `change` says how it ended, `changed` or `removed`, and `catalog_id` by which catalog.
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
