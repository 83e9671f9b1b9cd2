"""All tables of the first release."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "catalog_operation_instance_result",
        sa.Column("instance_id", sa.Uuid(), nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(collation="C"), nullable=False),
        sa.Column("data", postgresql.JSONB(), nullable=True),
        sa.Column("link", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint(
            "instance_id", "attempt", "seq", name=op.f("catalog_operation_instance_result_pkey")
        ),
        schema="catlog",
    )
    op.create_table(
        "provider",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), server_default="", nullable=False),
        sa.Column("base_url", sa.Text(), nullable=True),
        sa.Column("max_running", sa.Integer(), nullable=True),
        sa.CheckConstraint("max_running > 0", name=op.f("provider_max_running_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("provider_pkey")),
        sa.UniqueConstraint("name", name=op.f("provider_name_key")),
        schema="catlog",
    )
    op.create_table(
        "record",
        sa.Column("provider_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(collation="C"), nullable=False),
        sa.Column("scope_id", sa.Uuid(), nullable=False),
        sa.Column("data", postgresql.JSONB(), nullable=False),
        sa.Column("as_of", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("catalog_id", sa.Uuid(), nullable=False),
        sa.CheckConstraint("octet_length(key) <= 1000", name=op.f("record_key_check")),
        sa.PrimaryKeyConstraint("provider_id", "kind", "key", name=op.f("record_pkey")),
        schema="catlog",
        postgresql_partition_by="LIST (kind)",
    )
    op.create_index(
        "record_created_at_idx", "record", ["created_at"], unique=False, schema="catlog"
    )
    op.create_table(
        "record_version",
        sa.Column("provider_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(collation="C"), nullable=False),
        sa.Column("valid_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("valid_to", sa.DateTime(timezone=True), nullable=False),
        sa.Column("data", postgresql.JSONB(), nullable=False),
        sa.Column("change", sa.Text(), nullable=False),
        sa.Column("catalog_id", sa.Uuid(), nullable=False),
        sa.CheckConstraint(
            "change IN ('changed', 'removed')", name=op.f("record_version_change_check")
        ),
        sa.PrimaryKeyConstraint(
            "provider_id", "kind", "key", "valid_from", name=op.f("record_version_pkey")
        ),
        schema="catlog",
    )
    op.create_index(
        op.f("record_version_valid_to_idx"),
        "record_version",
        ["valid_to"],
        unique=False,
        schema="catlog",
    )
    op.create_table(
        "rejected_result",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("instance_id", sa.Uuid(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("url", sa.Text(), nullable=True),
        sa.Column("data", sa.Text(), nullable=False),
        sa.Column("errors", postgresql.JSONB(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint("octet_length(data) <= 65536", name=op.f("rejected_result_data_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("rejected_result_pkey")),
        schema="catlog",
    )
    op.create_index(
        op.f("rejected_result_instance_id_idx"),
        "rejected_result",
        ["instance_id"],
        unique=False,
        schema="catlog",
    )
    op.create_table(
        "catalog_scheme",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("provider_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("max_errors", sa.Integer(), server_default="5", nullable=False),
        sa.Column("includes", postgresql.JSONB(), server_default="[]", nullable=False),
        sa.Column("after", sa.Text(), nullable=True),
        sa.Column("retired_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("max_errors > 0", name=op.f("catalog_scheme_max_errors_check")),
        sa.CheckConstraint("version > 0", name=op.f("catalog_scheme_version_check")),
        sa.ForeignKeyConstraint(
            ["provider_id"], ["catlog.provider.id"], name=op.f("catalog_scheme_provider_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("catalog_scheme_pkey")),
        sa.UniqueConstraint(
            "provider_id",
            "name",
            "version",
            name=op.f("catalog_scheme_provider_id_name_version_key"),
        ),
        schema="catlog",
    )
    op.create_index(
        "catalog_scheme_active_key",
        "catalog_scheme",
        ["provider_id", "name"],
        unique=True,
        schema="catlog",
        postgresql_where=sa.text("retired_at IS NULL"),
    )
    op.create_table(
        "schedule",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("provider_id", sa.Uuid(), nullable=False),
        sa.Column("scheme_name", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("cron", sa.Text(), nullable=False),
        sa.Column("timezone", sa.Text(), server_default="UTC", nullable=False),
        sa.Column("arguments", postgresql.JSONB(), server_default="{}", nullable=False),
        sa.Column("catch_up", sa.Text(), server_default="latest", nullable=False),
        sa.Column("enabled", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("next_due_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("catch_up IN ('latest', 'none')", name=op.f("schedule_catch_up_check")),
        sa.ForeignKeyConstraint(
            ["provider_id"], ["catlog.provider.id"], name=op.f("schedule_provider_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("schedule_pkey")),
        sa.UniqueConstraint(
            "provider_id",
            "scheme_name",
            "name",
            name=op.f("schedule_provider_id_scheme_name_name_key"),
        ),
        schema="catlog",
    )
    op.create_table(
        "scope",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("provider_id", sa.Uuid(), nullable=False),
        sa.Column("scheme_name", sa.Text(), nullable=False),
        sa.Column("operation_name", sa.Text(), nullable=False),
        sa.Column("as_of", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["provider_id"], ["catlog.provider.id"], name=op.f("scope_provider_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("scope_pkey")),
        sa.UniqueConstraint(
            "provider_id",
            "scheme_name",
            "operation_name",
            name=op.f("scope_provider_id_scheme_name_operation_name_key"),
        ),
        schema="catlog",
    )
    op.create_table(
        "catalog",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("provider_id", sa.Uuid(), nullable=False),
        sa.Column("scheme_id", sa.Uuid(), nullable=False),
        sa.Column("parent_id", sa.Uuid(), nullable=True),
        sa.Column("schedule_id", sa.Uuid(), nullable=True),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("as_of", sa.DateTime(timezone=True), nullable=True),
        sa.Column("arguments", postgresql.JSONB(), server_default="{}", nullable=False),
        sa.Column("operation", sa.Text(), nullable=True),
        sa.Column("whole", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), server_default="0", nullable=False),
        sa.Column("state", sa.Text(), server_default="waiting", nullable=False),
        sa.Column("errors", sa.Integer(), server_default="0", nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("published", postgresql.JSONB(), nullable=True),
        sa.Column("publish_failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("publish_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("purged_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deadline_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('waiting', 'loading', 'publishing',"
            " 'loaded', 'failed', 'cancelled', 'skipped')",
            name=op.f("catalog_state_check"),
        ),
        sa.ForeignKeyConstraint(
            ["parent_id"], ["catlog.catalog.id"], name=op.f("catalog_parent_id_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["provider_id"], ["catlog.provider.id"], name=op.f("catalog_provider_id_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["schedule_id"], ["catlog.schedule.id"], name=op.f("catalog_schedule_id_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["scheme_id"], ["catlog.catalog_scheme.id"], name=op.f("catalog_scheme_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("catalog_pkey")),
        sa.UniqueConstraint("schedule_id", "due_at", name=op.f("catalog_schedule_id_due_at_key")),
        schema="catlog",
    )
    op.create_index(
        "catalog_created_at_idx", "catalog", ["created_at"], unique=False, schema="catlog"
    )
    op.create_index(
        "catalog_open_idx",
        "catalog",
        ["scheme_id"],
        unique=False,
        schema="catlog",
        postgresql_where=sa.text("state IN ('waiting', 'loading', 'publishing')"),
    )
    op.create_index(
        "catalog_parent_id_idx",
        "catalog",
        ["parent_id"],
        unique=False,
        schema="catlog",
        postgresql_where=sa.text("parent_id IS NOT NULL"),
    )
    op.create_index(
        "catalog_publishing_idx",
        "catalog",
        ["publish_at"],
        unique=False,
        schema="catlog",
        postgresql_where=sa.text("state = 'publishing'"),
    )
    op.create_table(
        "catalog_scheme_operation",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("scheme_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("spider", sa.Text(), nullable=False),
        sa.Column("executor", sa.Text(), server_default="scrapy", nullable=False),
        sa.Column("arguments", postgresql.JSONB(), server_default="{}", nullable=False),
        sa.Column("for_each", postgresql.JSONB(), nullable=True),
        sa.Column("mode", sa.Text(), server_default="snapshot", nullable=False),
        sa.Column("isolate", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("tolerate", postgresql.JSONB(), server_default="{}", nullable=False),
        sa.Column("min_results", sa.Integer(), server_default="1", nullable=False),
        sa.Column("timeout", sa.Double(), server_default="3600", nullable=False),
        sa.Column("backoff_base", sa.Double(), server_default="10", nullable=False),
        sa.Column("backoff_cap", sa.Double(), server_default="600", nullable=False),
        sa.Column("keep", sa.Double(), nullable=True),
        sa.CheckConstraint(
            "executor IN ('scrapy', 'external')",
            name=op.f("catalog_scheme_operation_executor_check"),
        ),
        sa.CheckConstraint(
            "mode IN ('snapshot', 'incremental')", name=op.f("catalog_scheme_operation_mode_check")
        ),
        sa.ForeignKeyConstraint(
            ["scheme_id"],
            ["catlog.catalog_scheme.id"],
            name=op.f("catalog_scheme_operation_scheme_id_fkey"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("catalog_scheme_operation_pkey")),
        sa.UniqueConstraint(
            "scheme_id", "name", name=op.f("catalog_scheme_operation_scheme_id_name_key")
        ),
        schema="catlog",
    )
    op.create_table(
        "catalog_scheme_operation_instance",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("catalog_id", sa.Uuid(), nullable=False),
        sa.Column("operation_id", sa.Uuid(), nullable=False),
        sa.Column("provider_id", sa.Uuid(), nullable=False),
        sa.Column("part", sa.Text(), server_default="", nullable=False),
        sa.Column("arguments", postgresql.JSONB(), server_default="{}", nullable=False),
        sa.Column("priority", sa.Integer(), server_default="0", nullable=False),
        sa.Column("position", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("state", sa.Text(), server_default="new", nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("lost", sa.Integer(), server_default="0", nullable=False),
        sa.Column(
            "available_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("node", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "state IN ('new', 'running', 'done', 'failed', 'cancelled')",
            name=op.f("catalog_scheme_operation_instance_state_check"),
        ),
        sa.ForeignKeyConstraint(
            ["catalog_id"],
            ["catlog.catalog.id"],
            name=op.f("catalog_scheme_operation_instance_catalog_id_fkey"),
        ),
        sa.ForeignKeyConstraint(
            ["operation_id"],
            ["catlog.catalog_scheme_operation.id"],
            name=op.f("catalog_scheme_operation_instance_operation_id_fkey"),
        ),
        sa.ForeignKeyConstraint(
            ["provider_id"],
            ["catlog.provider.id"],
            name=op.f("catalog_scheme_operation_instance_provider_id_fkey"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("catalog_scheme_operation_instance_pkey")),
        sa.UniqueConstraint("catalog_id", "operation_id", "part", name="instance_part_key"),
        schema="catlog",
    )
    op.create_index(
        "instance_held_idx",
        "catalog_scheme_operation_instance",
        ["provider_id", "available_at"],
        unique=False,
        schema="catlog",
        postgresql_where=sa.text("node IS NOT NULL"),
    )
    op.create_index(
        "instance_queue_idx",
        "catalog_scheme_operation_instance",
        ["provider_id", sa.literal_column("priority DESC"), "position"],
        unique=False,
        schema="catlog",
        postgresql_where=sa.text("state = 'new'"),
    )
    op.create_table(
        "kind",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("operation_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("key", postgresql.JSONB(), nullable=False),
        sa.Column("fields", postgresql.JSONB(), nullable=False),
        sa.Column("foreign_type", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["operation_id"],
            ["catlog.catalog_scheme_operation.id"],
            name=op.f("kind_operation_id_fkey"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("kind_pkey")),
        sa.UniqueConstraint("operation_id", "name", name=op.f("kind_operation_id_name_key")),
        schema="catlog",
    )
    op.create_index(op.f("kind_name_idx"), "kind", ["name"], unique=False, schema="catlog")
    op.create_table(
        "instance_attempt",
        sa.Column("instance_id", sa.Uuid(), nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("job", sa.Text(), nullable=True),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deadline_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("log", sa.Text(), nullable=True),
        sa.Column("limits", postgresql.JSONB(), server_default="{}", nullable=False),
        sa.Column("stats", postgresql.JSONB(), nullable=True),
        sa.Column("accepted", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("rejected", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("dropped", sa.BigInteger(), server_default="0", nullable=False),
        sa.CheckConstraint(
            "outcome IN ('done', 'failed', 'incomplete', 'lost',"
            " 'timed_out', 'cancelled', 'released')",
            name=op.f("instance_attempt_outcome_check"),
        ),
        sa.ForeignKeyConstraint(
            ["instance_id"],
            ["catlog.catalog_scheme_operation_instance.id"],
            name=op.f("instance_attempt_instance_id_fkey"),
        ),
        sa.PrimaryKeyConstraint("instance_id", "attempt", name=op.f("instance_attempt_pkey")),
        schema="catlog",
    )


def downgrade() -> None:
    """Remove them, and with them all data."""
    op.drop_table("instance_attempt", schema="catlog")
    op.drop_table("kind", schema="catlog")
    op.drop_table("catalog_scheme_operation_instance", schema="catlog")
    op.drop_table("catalog_scheme_operation", schema="catlog")
    op.drop_table("catalog", schema="catlog")
    op.drop_table("scope", schema="catlog")
    op.drop_table("schedule", schema="catlog")
    op.drop_table("catalog_scheme", schema="catlog")
    op.drop_table("rejected_result", schema="catlog")
    op.drop_table("record_version", schema="catlog")
    op.drop_table("record", schema="catlog")
    op.drop_table("provider", schema="catlog")
    op.drop_table("catalog_operation_instance_result", schema="catlog")
