"""Schemes, operations and kinds: frozen once a catalog uses them, except limits and times."""

import datetime as dt
import uuid

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from catlog_scrapy.models.base import Base, Instant, Json, Seconds, UuidKey


class CatalogScheme(Base):
    """A version of a scheme. `includes` names schemes of the same provider."""

    __tablename__ = "catalog_scheme"
    __table_args__ = (
        UniqueConstraint("provider_id", "name", "version"),
        Index(
            "catalog_scheme_active_key",
            "provider_id",
            "name",
            unique=True,
            postgresql_where=text("retired_at IS NULL"),
        ),
        CheckConstraint("version > 0", name="version"),
        CheckConstraint("max_errors > 0", name="max_errors"),
    )

    id: Mapped[UuidKey]
    provider_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("catlog.provider.id"))
    name: Mapped[str]
    version: Mapped[int]
    max_errors: Mapped[int] = mapped_column(server_default="5")
    includes: Mapped[Json] = mapped_column(server_default="[]")
    after: Mapped[str | None]
    retired_at: Mapped[Instant | None]


class CatalogSchemeOperation(Base):
    """A spider, or an external executor, as part of a scheme.

    `for_each` is NULL, the name of a kind, or a list of words. `standalone_arguments` lists the
    arguments that replace the parts. `hosts` lists the hosts that arguments may name, besides those
    below the provider's `base_url`. `tolerate` maps names of tolerances to a count (an integer) or
    a share (a float up to 1.0). Only a worker with all `tags` takes the operation. `timeout`,
    `start_timeout`, `stall_timeout`, `backoff_base`, `backoff_cap`, `keep` and `overlap` are
    seconds; with a `keep` of NULL versions are never pruned. `refresh` is NULL or
    `{"every": seconds, "by": field}`.
    """

    __tablename__ = "catalog_scheme_operation"
    __table_args__ = (
        UniqueConstraint("scheme_id", "name"),
        CheckConstraint("executor IN ('scrapy', 'external')", name="executor"),
        CheckConstraint("mode IN ('snapshot', 'incremental')", name="mode"),
    )

    id: Mapped[UuidKey]
    scheme_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("catlog.catalog_scheme.id"))
    name: Mapped[str]
    spider: Mapped[str]
    executor: Mapped[str] = mapped_column(server_default="scrapy")
    arguments: Mapped[Json] = mapped_column(server_default="{}")
    for_each: Mapped[Json | None]
    standalone_arguments: Mapped[Json] = mapped_column(server_default="[]")
    hosts: Mapped[Json] = mapped_column(server_default="[]")
    mode: Mapped[str] = mapped_column(server_default="snapshot")
    isolate: Mapped[bool] = mapped_column(server_default=text("false"))
    tags: Mapped[Json] = mapped_column(server_default="[]")
    tolerate: Mapped[Json] = mapped_column(server_default="{}")
    min_results: Mapped[int] = mapped_column(server_default="1")
    timeout: Mapped[Seconds] = mapped_column(server_default="3600")
    start_timeout: Mapped[Seconds] = mapped_column(server_default="120")
    stall_timeout: Mapped[Seconds] = mapped_column(server_default="600")
    backoff_base: Mapped[Seconds] = mapped_column(server_default="10")
    backoff_cap: Mapped[Seconds] = mapped_column(server_default="600")
    keep: Mapped[Seconds | None]
    overlap: Mapped[Seconds | None]
    refresh: Mapped[Json | None]


class StoredKind(Base):
    """A type of record, as an operation of a scheme version writes it.

    `name` is also the name of its view in `public`. `key` lists the fields that identify a record,
    in order; `fields` lists `{"name", "type"}` in order, with PostgreSQL's name of the type. A
    `foreign_type` is declared for a spider without a record type: its items may have more fields.
    `indexes` and `unique_fields` are lists of lists of fields. `untracked` lists fields whose new
    values alone do not change a record. `item_rules` say how items become records of a
    `foreign_type`.
    """

    __tablename__ = "kind"
    __table_args__ = (UniqueConstraint("operation_id", "name"),)

    id: Mapped[UuidKey]
    operation_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("catlog.catalog_scheme_operation.id")
    )
    name: Mapped[str] = mapped_column(index=True)
    key: Mapped[Json]
    fields: Mapped[Json]
    foreign_type: Mapped[bool] = mapped_column(server_default=text("false"))
    indexes: Mapped[Json] = mapped_column(server_default="[]")
    unique_fields: Mapped[Json] = mapped_column(server_default="[]")
    untracked: Mapped[Json] = mapped_column(server_default="[]")
    item_rules: Mapped[Json] = mapped_column(server_default="{}")
    created_at: Mapped[dt.datetime] = mapped_column(server_default=text("clock_timestamp()"))
