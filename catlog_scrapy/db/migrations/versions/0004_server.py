"""Who may use the server and what they did; what was published; batches of external executors."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add them, a key to sign tokens with, and the schema of the views of the past."""
    op.create_table(
        "api_key",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("scopes", postgresql.JSONB(), nullable=True),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "role IN ('admin', 'internal', 'service', 'user')", name=op.f("api_key_role_check")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("api_key_pkey")),
        sa.UniqueConstraint("hash", name=op.f("api_key_hash_key")),
        sa.UniqueConstraint("name", name=op.f("api_key_name_key")),
        schema="catlog",
    )
    op.create_table(
        "api_user",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=False),
        sa.Column("enabled", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "role IN ('admin', 'internal', 'service', 'user')", name=op.f("api_user_role_check")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("api_user_pkey")),
        sa.UniqueConstraint("name", name=op.f("api_user_name_key")),
        schema="catlog",
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column(
            "at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("detail", postgresql.JSONB(), server_default="{}", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("audit_pkey")),
        schema="catlog",
    )
    op.create_index(op.f("audit_at_idx"), "audit", ["at"], unique=False, schema="catlog")
    op.create_table(
        "idempotent_request",
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("request", sa.Text(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("body", postgresql.JSONB(), nullable=True),
        sa.Column("headers", postgresql.JSONB(), server_default="{}", nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("actor", "key", name=op.f("idempotent_request_pkey")),
        schema="catlog",
    )
    op.create_index(
        op.f("idempotent_request_created_at_idx"),
        "idempotent_request",
        ["created_at"],
        unique=False,
        schema="catlog",
    )
    op.create_table(
        "login_failure",
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("blocked_until", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("subject", name=op.f("login_failure_pkey")),
        schema="catlog",
    )
    op.create_table(
        "publication",
        sa.Column("provider_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("catalog_id", sa.Uuid(), nullable=True),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("provider_id", "kind", name=op.f("publication_pkey")),
        schema="catlog",
    )
    op.create_table(
        "result_batch",
        sa.Column("instance_id", sa.Uuid(), nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("accepted", sa.Integer(), nullable=False),
        sa.Column("rejected", sa.Integer(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("instance_id", "attempt", "number", name=op.f("result_batch_pkey")),
        schema="catlog",
    )
    op.create_table(
        "signing_key",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint("id = 1", name=op.f("signing_key_only_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("signing_key_pkey")),
        schema="catlog",
    )
    op.create_table(
        "refresh_token",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("family", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("replaced_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["catlog.api_user.id"],
            name=op.f("refresh_token_user_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("refresh_token_pkey")),
        schema="catlog",
    )
    op.create_index(
        op.f("refresh_token_family_idx"), "refresh_token", ["family"], unique=False, schema="catlog"
    )
    op.create_index(
        op.f("refresh_token_user_id_idx"),
        "refresh_token",
        ["user_id"],
        unique=False,
        schema="catlog",
    )
    op.add_column(
        "schedule",
        sa.Column("origin", sa.Text(), server_default="file", nullable=False),
        schema="catlog",
    )
    op.add_column(
        "schedule",
        sa.Column("paused_at", sa.DateTime(timezone=True), nullable=True),
        schema="catlog",
    )
    op.create_check_constraint(
        op.f("schedule_origin_check"), "schedule", "origin IN ('file', 'api')", schema="catlog"
    )
    # A kind's versions that held at a time are found by it; other kinds' are in its way.
    op.create_index(
        "record_version_kind_valid_to_idx",
        "record_version",
        ["kind", "valid_to"],
        unique=False,
        schema="catlog",
    )
    op.drop_index(op.f("record_version_valid_to_idx"), table_name="record_version", schema="catlog")
    # 366 random bits: the extension that has random bytes may not be there.
    op.execute(
        """INSERT INTO catlog.signing_key (id, value)
           SELECT 1, sha256(string_agg(gen_random_uuid()::text, '')::bytea)
           FROM generate_series(1, 3)"""
    )
    op.execute("CREATE SCHEMA IF NOT EXISTS as_of")


def downgrade() -> None:
    """Remove them."""
    op.execute("DROP SCHEMA as_of CASCADE")
    op.create_index(
        op.f("record_version_valid_to_idx"),
        "record_version",
        ["valid_to"],
        unique=False,
        schema="catlog",
    )
    op.drop_index("record_version_kind_valid_to_idx", table_name="record_version", schema="catlog")
    op.drop_constraint("schedule_origin_check", "schedule", schema="catlog")

    op.drop_column("schedule", "paused_at", schema="catlog")
    op.drop_column("schedule", "origin", schema="catlog")
    op.drop_index(op.f("refresh_token_user_id_idx"), table_name="refresh_token", schema="catlog")
    op.drop_index(op.f("refresh_token_family_idx"), table_name="refresh_token", schema="catlog")
    op.drop_table("refresh_token", schema="catlog")
    op.drop_table("signing_key", schema="catlog")
    op.drop_table("result_batch", schema="catlog")
    op.drop_table("publication", schema="catlog")
    op.drop_table("login_failure", schema="catlog")
    op.drop_index(
        op.f("idempotent_request_created_at_idx"), table_name="idempotent_request", schema="catlog"
    )
    op.drop_table("idempotent_request", schema="catlog")
    op.drop_index(op.f("audit_at_idx"), table_name="audit", schema="catlog")
    op.drop_table("audit", schema="catlog")
    op.drop_table("api_user", schema="catlog")
    op.drop_table("api_key", schema="catlog")
