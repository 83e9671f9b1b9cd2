"""State of the records' operations: scopes, cursors, publications.

The records themselves are in the schema `records`; see `store.record_tables`.
"""

import datetime as dt
import uuid

from sqlalchemy import ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from catlog_scrapy.models.base import Base, Big, Instant, Number, UuidKey


class Scope(Base):
    """The operation that answers for a set of records, across scheme versions and parts.

    `high_water_mark` is the `as_of` of the newest full snapshot that was published, `dropped` the
    number of items that the project's pipelines dropped in it. Record tables refer to the scope by
    its `number`.
    """

    __tablename__ = "scope"
    __table_args__ = (UniqueConstraint("provider_id", "scheme_name", "operation_name"),)

    id: Mapped[UuidKey]
    number: Mapped[Number]
    provider_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("catlog.provider.id"))
    scheme_name: Mapped[str]
    operation_name: Mapped[str]
    high_water_mark: Mapped[Instant | None]
    dropped: Mapped[Big] = mapped_column(server_default="0")


class PartMark(Base):
    """The `as_of` up to which a full load confirmed the records of a part.

    Only parts that were read after the scope's high-water mark have a row: a full load does not
    write the records that it finds unchanged.
    """

    __tablename__ = "part_mark"

    scope_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("catlog.scope.id", ondelete="CASCADE"), primary_key=True
    )
    part: Mapped[str] = mapped_column(primary_key=True)
    as_of: Mapped[dt.datetime]


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
