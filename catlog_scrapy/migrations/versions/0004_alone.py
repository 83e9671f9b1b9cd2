"""Arguments that say all that an operation needs, so that it has no parts."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the column."""
    op.add_column(
        "catalog_scheme_operation",
        sa.Column("alone", postgresql.JSONB(), server_default="[]", nullable=False),
        schema="catlog",
    )


def downgrade() -> None:
    """Remove it."""
    op.drop_column("catalog_scheme_operation", "alone", schema="catlog")
