"""The names of a provider's secrets."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the column."""
    op.add_column(
        "provider",
        sa.Column("secrets", postgresql.JSONB(), server_default="[]", nullable=False),
        schema="catlog",
    )


def downgrade() -> None:
    """Remove it."""
    op.drop_column("provider", "secrets", schema="catlog")
