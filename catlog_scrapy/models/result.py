"""Results of attempts, as they arrived. Only publishing and `scrapy status` read them."""

import uuid
from typing import Any

from sqlalchemy import JSON, CheckConstraint
from sqlalchemy.orm import Mapped, mapped_column

from catlog_scrapy.models.base import Base, CreatedAt, Json, Key, UuidKey


class CatalogOperationInstanceResult(Base):
    """A record of an attempt, numbered by `seq` from 0: its data, and the link that they hold.

    `key_hash` is the record's id, `content_hash` the hash of the data as they were written. Without
    a content hash the record is unchanged; with a content hash of zeroes the source has removed the
    record. Both have no data. A foreign key is missing on purpose: COPY would check each row, and
    rows of a lost attempt may arrive after the attempt was purged. A partition has the results of
    the instances of a day.
    """

    __tablename__ = "catalog_operation_instance_result"
    __table_args__ = ({"postgresql_partition_by": "RANGE (instance_id)"},)

    instance_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str]
    key: Mapped[Key]
    key_hash: Mapped[uuid.UUID]
    content_hash: Mapped[uuid.UUID | None]
    # The type json, which keeps the text: jsonb takes a third more of the server's time for COPY.
    data: Mapped[Any | None] = mapped_column(JSON(none_as_null=True))
    link: Mapped[str | None]


class ResultBatch(Base):
    """A batch of an external executor, numbered from 1; sending it again changes nothing.

    `hash` is the SHA-256 of its body. `accepted` and `rejected` count its items.
    """

    __tablename__ = "result_batch"

    instance_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    hash: Mapped[str]
    accepted: Mapped[int]
    rejected: Mapped[int]
    created_at: Mapped[CreatedAt]


class RejectedResult(Base):
    """An item that failed validation, with the reasons. `data` is ASCII, cut at 64 KiB."""

    __tablename__ = "rejected_result"
    __table_args__ = (CheckConstraint("octet_length(data) <= 65536", name="data"),)

    id: Mapped[UuidKey]
    instance_id: Mapped[uuid.UUID] = mapped_column(index=True)
    attempt: Mapped[int]
    url: Mapped[str | None]
    data: Mapped[str]
    errors: Mapped[Json]
    created_at: Mapped[CreatedAt]
