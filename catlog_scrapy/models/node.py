"""Nodes that run spiders, as they last reported themselves."""

import datetime as dt

from sqlalchemy import CheckConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from catlog_scrapy.models.base import Base, CreatedAt, Instant, Json, Seconds

NODE_STATES = ("up", "draining", "stopped")


class Node(Base):
    """A scrapyd that claims from the queue. The row is for people only.

    `url` is its web page. `tags` says which operations it may take. `poll` is its poll interval in
    seconds. `projects` maps the name of a project to its `version` on this node, and to an `error`
    if the project cannot run.
    """

    __tablename__ = "node"
    __table_args__ = (
        CheckConstraint(
            "state IN (" + ", ".join(f"'{state}'" for state in NODE_STATES) + ")", name="state"
        ),
    )

    name: Mapped[str] = mapped_column(primary_key=True)
    url: Mapped[str]
    pid: Mapped[int]
    version: Mapped[str]
    slots: Mapped[int]
    running: Mapped[int] = mapped_column(server_default=text("0"))
    tags: Mapped[Json] = mapped_column(server_default="[]")
    poll: Mapped[Seconds]
    projects: Mapped[Json] = mapped_column(server_default="{}")
    state: Mapped[str] = mapped_column(server_default="up")
    started_at: Mapped[CreatedAt]
    polled_at: Mapped[dt.datetime] = mapped_column(server_default=text("clock_timestamp()"))
    error: Mapped[str | None]
    error_at: Mapped[Instant | None]


class NodeLease(Base):
    """Lease of a node's name by a process, so that two nodes never have one name.

    `holder` identifies the process: see `processes.process_identity`.
    """

    __tablename__ = "node_lease"

    name: Mapped[str] = mapped_column(primary_key=True)
    holder: Mapped[str]
    lease_expires_at: Mapped[Instant]
