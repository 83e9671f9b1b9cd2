"""Providers of data."""

from sqlalchemy import CheckConstraint
from sqlalchemy.orm import Mapped, mapped_column

from catlog_scrapy.models.base import Base, Json, Number, UuidKey


class Provider(Base):
    """A source of catalogs. `max_running` limits its running instances; NULL is unlimited.

    `secrets` are the names of the secrets that its spiders get from the environment, never the
    values. `project` names the Scrapy project that declares it and has its spiders. Record tables
    refer to the provider by its `number`. `tags_revision` rises when tags of its operations change.
    """

    __tablename__ = "provider"
    __table_args__ = (CheckConstraint("max_running > 0", name="max_running"),)

    id: Mapped[UuidKey]
    number: Mapped[Number]
    name: Mapped[str] = mapped_column(unique=True)
    title: Mapped[str] = mapped_column(server_default="")
    base_url: Mapped[str | None]
    max_running: Mapped[int | None]
    secrets: Mapped[Json] = mapped_column(server_default="[]")
    project: Mapped[str | None]
    tags_revision: Mapped[int] = mapped_column(server_default="0")
