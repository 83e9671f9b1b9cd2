"""What an attempt brought, as it came. Nobody but publishing and `status` reads it."""

import uuid

from sqlalchemy import CheckConstraint
from sqlalchemy.orm import Mapped, mapped_column

from catlog_scrapy.models.base import Base, Big, CreatedAt, Json, Key, UuidKey


class CatalogOperationInstanceResult(Base):
    """One record of one attempt, `seq` from 0: its data, or a link to where they lie.

    Neither: the spider saw the key and took it for unchanged; the data JSON's null: it is gone, as
    the source says. No foreign key: COPY would pay for
    it row by row, and rows of an attempt that lost may arrive after it was purged.
    """

    __tablename__ = "catalog_operation_instance_result"

    instance_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    seq: Mapped[Big] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str]
    key: Mapped[Key]
    data: Mapped[Json | None]
    link: Mapped[str | None]


class ResultBatch(Base):
    """A batch that an external executor sent, `number` from 1: sent again, it changes nothing.

    `hash` is SHA-256 of its body. `accepted` and `rejected` count its items.
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
    """An item that did not pass the check, with the reasons. `data` is ASCII, cut at 64 KiB."""

    __tablename__ = "rejected_result"
    __table_args__ = (CheckConstraint("octet_length(data) <= 65536", name="data"),)

    id: Mapped[UuidKey]
    instance_id: Mapped[uuid.UUID] = mapped_column(index=True)
    attempt: Mapped[int]
    url: Mapped[str | None]
    data: Mapped[str]
    errors: Mapped[Json]
    created_at: Mapped[CreatedAt]
