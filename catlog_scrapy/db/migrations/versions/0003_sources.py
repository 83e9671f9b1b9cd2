"""Cursors, what need not be read again, loads of one thing alone, secrets."""

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"


def columns() -> Iterator[tuple[str, sa.Column[Any]]]:
    """The new ones, each with its table."""
    yield "catalog_scheme_operation", sa.Column("overlap", sa.Double(), nullable=True)
    yield "catalog_scheme_operation", sa.Column("refresh", postgresql.JSONB(), nullable=True)
    yield (
        "catalog_scheme_operation",
        sa.Column("alone", postgresql.JSONB(), server_default="[]", nullable=False),
    )
    yield (
        "provider",
        sa.Column("secrets", postgresql.JSONB(), server_default="[]", nullable=False),
    )
    yield "instance_attempt", sa.Column("read_from", sa.Text(), nullable=True)
    yield "instance_attempt", sa.Column("read_to", sa.Text(), nullable=True)
    yield "record", sa.Column("read_at", sa.DateTime(timezone=True), nullable=True)


def upgrade() -> None:
    """Add the table and the columns."""
    op.create_table(
        "cursor",
        sa.Column("scope_id", sa.Uuid(), nullable=False),
        sa.Column("part", sa.Text(), nullable=False),
        sa.Column("operation_id", sa.Uuid(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("catalog_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["scope_id"],
            ["catlog.scope.id"],
            name=op.f("cursor_scope_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["operation_id"],
            ["catlog.catalog_scheme_operation.id"],
            name=op.f("cursor_operation_id_fkey"),
        ),
        sa.PrimaryKeyConstraint("scope_id", "part", name=op.f("cursor_pkey")),
        schema="catlog",
    )
    for table, column in columns():
        op.add_column(table, column, schema="catlog")


def downgrade() -> None:
    """Remove them."""
    for table, column in columns():
        op.drop_column(table, column.name, schema="catlog")
    op.drop_table("cursor", schema="catlog")
