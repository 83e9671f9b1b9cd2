"""What a fleet needs to know: projects, nodes, processes, jobs of scrapyd's API."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the table and the columns."""
    op.create_table(
        "node",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("running", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("poll", sa.Double(), nullable=False),
        sa.Column("projects", postgresql.JSONB(), server_default="{}", nullable=False),
        sa.Column("state", sa.Text(), server_default="up", nullable=False),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "polled_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("error_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("state IN ('up', 'draining', 'stopped')", name=op.f("node_state_check")),
        sa.PrimaryKeyConstraint("name", name=op.f("node_pkey")),
        schema="catlog",
    )
    add: dict[str, list[sa.Column[Any]]] = {
        "provider": [sa.Column("project", sa.Text(), nullable=True)],
        "catalog": [
            sa.Column("job", sa.Text(), nullable=True),
            sa.Column("settings", postgresql.JSONB(), server_default="{}", nullable=False),
            sa.Column("project_version", sa.Text(), nullable=True),
        ],
        "catalog_scheme_operation": [
            sa.Column("start_timeout", sa.Double(), server_default="120", nullable=False),
            sa.Column("stall_timeout", sa.Double(), server_default="600", nullable=False),
        ],
        "instance_attempt": [
            sa.Column("pid", sa.Integer(), nullable=True),
            sa.Column("begun_at", sa.DateTime(timezone=True), nullable=True),
        ],
    }
    for table, columns in add.items():
        for column in columns:
            op.add_column(table, column, schema="catlog")
    op.drop_column("instance_attempt", "job", schema="catlog")
    op.create_unique_constraint("catalog_job_key", "catalog", ["job"], schema="catlog")
    op.create_index(
        "instance_attempt_finished_at_idx",
        "instance_attempt",
        ["finished_at"],
        schema="catlog",
        postgresql_where=sa.text("finished_at IS NOT NULL"),
    )


def downgrade() -> None:
    """Remove them."""
    op.drop_index(
        "instance_attempt_finished_at_idx", table_name="instance_attempt", schema="catlog"
    )
    op.add_column("instance_attempt", sa.Column("job", sa.Text(), nullable=True), schema="catlog")
    for table, names in {
        "instance_attempt": ["begun_at", "pid"],
        "catalog_scheme_operation": ["stall_timeout", "start_timeout"],
        "catalog": ["project_version", "settings", "job"],
        "provider": ["project"],
    }.items():
        for name in names:
            op.drop_column(table, name, schema="catlog")
    op.drop_table("node", schema="catlog")
