"""All tables of the first release."""

from pathlib import Path

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

# Beside the modules that call them, which share their text with this revision.
STORE = Path(__file__).parents[3] / "store"


# A look at the records of all kinds, or of some. A function, because a view would prevent `apply`
# from changing the columns of the tables in the schema `records`.
FOR_EACH_KIND = """
    FOR found IN
        SELECT DISTINCT ON (k.name) k.name,
            (SELECT string_agg(format('r.%I', f ->> 'name'), ', ')
             FROM jsonb_array_elements(k.fields) AS f) AS fields,
            CASE WHEN jsonb_array_length(k.key) = 1
                THEN format('r.%I::text', k.key ->> 0)
                ELSE (SELECT format('array_to_json(ARRAY[%s])::text',
                          string_agg(format('to_json(r.%I)', part.field), ', '))
                      FROM jsonb_array_elements_text(k.key) AS part(field)) END AS key,
            CASE WHEN k.foreign_type THEN ' || coalesce(r.data, $${}$$)' ELSE '' END AS further
        FROM catlog.kind k
        JOIN catlog.catalog_scheme_operation o ON o.id = k.operation_id
        JOIN catlog.catalog_scheme s ON s.id = o.scheme_id
        WHERE (kinds IS NULL OR k.name = ANY(kinds))
          AND to_regclass(format('records.%I', k.name)) IS NOT NULL
        ORDER BY k.name, s.retired_at DESC NULLS FIRST, s.version DESC
    LOOP"""

ALL_RECORDS = f"""
    CREATE FUNCTION catlog.records(kinds text[] DEFAULT NULL) RETURNS TABLE (
        kind text, provider text, scheme text, operation text, part text, key text, data jsonb,
        as_of timestamptz, created_at timestamptz, updated_at timestamptz, removed_at timestamptz,
        read_at timestamptz, catalog_id uuid)
    LANGUAGE plpgsql STABLE AS $body$
    DECLARE found record;
    BEGIN
    {FOR_EACH_KIND}
        RETURN QUERY EXECUTE format($query$
            SELECT %L::text, p.name, s.scheme_name, s.operation_name, coalesce(r._part, ''),
                %s, (SELECT to_jsonb(f) FROM (SELECT %s) AS f)%s, r._as_of, r._created_at,
                r._updated_at, r._removed_at, r._read_at, c.id
            FROM records.%I r JOIN catlog.provider p ON p.number = r._provider
            LEFT JOIN catlog.scope s ON s.number = r._scope
            LEFT JOIN catlog.catalog c ON c.number = r._catalog$query$,
            found.name, found.key, found.fields, found.further, found.name);
    END LOOP;
    END $body$"""

ALL_RECORD_VERSIONS = f"""
    CREATE FUNCTION catlog.record_versions(kinds text[] DEFAULT NULL) RETURNS TABLE (
        kind text, provider text, key text, data jsonb, valid_from timestamptz,
        valid_to timestamptz, change text, catalog_id uuid)
    LANGUAGE plpgsql STABLE AS $body$
    DECLARE found record;
    BEGIN
    {FOR_EACH_KIND}
        RETURN QUERY EXECUTE format($query$
            SELECT %L::text, p.name, %s, (SELECT to_jsonb(f) FROM (SELECT %s) AS f)%s,
                r._valid_from, r._valid_to, r._change, c.id
            FROM records.%I r JOIN catlog.provider p ON p.number = r._provider
            LEFT JOIN catlog.catalog c ON c.number = r._catalog$query$,
            found.name, found.key, found.fields, found.further, found.name || '_versions');
    END LOOP;
    END $body$"""


# A hybrid logical clock: the server's clock while it runs forward, else one microsecond after the
# last time. The sequence holds the last time, in microseconds.
READING_TIME = """
    CREATE FUNCTION catlog.reading_time() RETURNS timestamptz
    LANGUAGE plpgsql VOLATILE AS $body$
    DECLARE
        time bigint := nextval('catlog.reading_clock');
        clock bigint := extract(epoch FROM clock_timestamp()) * 1000000;
    BEGIN
        IF clock > time THEN
            PERFORM setval('catlog.reading_clock', clock);
            time := clock;
        END IF;
        RETURN timestamptz 'epoch' + time * interval '1 microsecond';
    END $body$"""


def upgrade() -> None:
    """Make the tables, the key that signs tokens, and the schemas of as-of views and records."""
    op.execute("CREATE SEQUENCE catlog.reading_clock")
    # The latest time of the server's clock, in microseconds, to notice steps back.
    op.execute("CREATE SEQUENCE catlog.clock_seen")
    op.execute(READING_TIME)
    _create_uuid7()
    _create_api_key()
    _create_api_user()
    _create_audit()
    _create_catalog_operation_instance_result()
    _create_idempotent_request()
    _create_login_failure()
    _create_node()
    _create_provider()
    _create_publication()
    _create_rejected_result()
    _create_result_batch()
    _create_signing_key()
    _create_catalog_scheme()
    _create_refresh_token()
    _create_schedule()
    _create_scope()
    _create_catalog()
    _create_catalog_summary()
    _create_pruned_due_time()
    _create_catalog_scheme_operation()
    _create_catalog_scheme_operation_instance()
    _create_cursor()
    _create_kind()
    _create_instance_attempt()
    _create_part_mark()
    op.execute(
        """INSERT INTO catlog.signing_key (id, value)
           SELECT 1, sha256(string_agg(gen_random_uuid()::text, '')::bytea)
           FROM generate_series(1, 3)"""
    )
    op.execute("CREATE SCHEMA IF NOT EXISTS as_of")
    op.execute("CREATE SCHEMA IF NOT EXISTS records")
    op.execute(ALL_RECORDS)
    op.execute(ALL_RECORD_VERSIONS)
    for file in [*sorted(STORE.glob("*/functions/*.sql")), STORE / "reading" / "bound_queries.sql"]:
        op.get_bind().exec_driver_sql(
            file.read_text(encoding="utf-8"), execution_options={"no_parameters": True}
        )


def _create_uuid7() -> None:
    """Create the function that makes ids in order of time.

    PostgreSQL has uuidv7() from version 18 on. This one takes the time as an argument.
    """
    op.execute(
        """CREATE FUNCTION catlog.uuid7(at timestamptz DEFAULT clock_timestamp()) RETURNS uuid
           LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
               -- A random UUID, with 48 bits of milliseconds in front, and version 7 for 4.
               SELECT encode(set_bit(set_bit(
                   substring(int8send(floor(extract(epoch FROM at) * 1000)::bigint) FROM 3)
                       || substring(uuid_send(gen_random_uuid()) FROM 7),
                   52, 1), 53, 1), 'hex')::uuid
           $$"""
    )


def _create_api_key() -> None:
    op.create_table(
        "api_key",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("scopes", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
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


def _create_api_user() -> None:
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


def _create_audit() -> None:
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
        sa.Column(
            "detail", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("audit_pkey")),
        schema="catlog",
    )
    op.create_index(op.f("audit_at_idx"), "audit", ["at"], unique=False, schema="catlog")


def _create_catalog_operation_instance_result() -> None:
    op.create_table(
        "catalog_operation_instance_result",
        sa.Column("instance_id", sa.Uuid(), nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(collation="C"), nullable=False),
        sa.Column("key_hash", sa.Uuid(), nullable=False),
        sa.Column("content_hash", sa.Uuid(), nullable=True),
        sa.Column("data", sa.JSON(), nullable=True),
        sa.Column("link", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint(
            "instance_id", "attempt", "seq", name=op.f("catalog_operation_instance_result_pkey")
        ),
        schema="catlog",
        postgresql_partition_by="RANGE (instance_id)",
    )
    op.execute(
        """CREATE TABLE catlog.catalog_operation_instance_result_default
           PARTITION OF catlog.catalog_operation_instance_result DEFAULT"""
    )


def _create_idempotent_request() -> None:
    op.create_table(
        "idempotent_request",
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("request", sa.Text(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("body", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column(
            "headers", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False
        ),
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


def _create_login_failure() -> None:
    op.create_table(
        "login_failure",
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("blocked_until", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("subject", name=op.f("login_failure_pkey")),
        schema="catlog",
    )


def _create_node() -> None:
    op.create_table(
        "node",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("running", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "tags", postgresql.JSONB(astext_type=sa.Text()), server_default="[]", nullable=False
        ),
        sa.Column("poll", sa.Double(), nullable=False),
        sa.Column(
            "projects", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False
        ),
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
    op.create_table(
        "node_lease",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("node_lease_pkey")),
        schema="catlog",
    )


def _create_provider() -> None:
    op.create_table(
        "provider",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("number", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), server_default="", nullable=False),
        sa.Column("base_url", sa.Text(), nullable=True),
        sa.Column("max_running", sa.Integer(), nullable=True),
        sa.Column(
            "secrets", postgresql.JSONB(astext_type=sa.Text()), server_default="[]", nullable=False
        ),
        sa.Column("project", sa.Text(), nullable=True),
        sa.Column("tags_revision", sa.Integer(), server_default="0", nullable=False),
        sa.CheckConstraint("max_running > 0", name=op.f("provider_max_running_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("provider_pkey")),
        sa.UniqueConstraint("name", name=op.f("provider_name_key")),
        sa.UniqueConstraint("number", name=op.f("provider_number_key")),
        schema="catlog",
    )


def _create_publication() -> None:
    op.create_table(
        "publication",
        sa.Column("provider_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("catalog_id", sa.Uuid(), nullable=True),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("provider_id", "kind", name=op.f("publication_pkey")),
        schema="catlog",
    )


def _create_rejected_result() -> None:
    op.create_table(
        "rejected_result",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("instance_id", sa.Uuid(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("url", sa.Text(), nullable=True),
        sa.Column("data", sa.Text(), nullable=False),
        sa.Column("errors", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
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


def _create_result_batch() -> None:
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


def _create_signing_key() -> None:
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


def _create_catalog_scheme() -> None:
    op.create_table(
        "catalog_scheme",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("provider_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("max_errors", sa.Integer(), server_default="5", nullable=False),
        sa.Column(
            "includes", postgresql.JSONB(astext_type=sa.Text()), server_default="[]", nullable=False
        ),
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


def _create_refresh_token() -> None:
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


def _create_schedule() -> None:
    op.create_table(
        "schedule",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("provider_id", sa.Uuid(), nullable=False),
        sa.Column("scheme_name", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("cron", sa.Text(), nullable=False),
        sa.Column("timezone", sa.Text(), server_default="UTC", nullable=False),
        sa.Column(
            "arguments",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default="{}",
            nullable=False,
        ),
        sa.Column("catch_up", sa.Text(), server_default="latest", nullable=False),
        sa.Column("enabled", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("origin", sa.Text(), server_default="file", nullable=False),
        sa.Column("paused_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("next_due_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("catch_up IN ('latest', 'none')", name=op.f("schedule_catch_up_check")),
        sa.CheckConstraint("origin IN ('file', 'api')", name=op.f("schedule_origin_check")),
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
    op.create_index(
        "schedule_due_idx",
        "schedule",
        ["next_due_at"],
        unique=False,
        schema="catlog",
        postgresql_where=sa.text("enabled"),
    )


def _create_scope() -> None:
    op.create_table(
        "scope",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("number", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("provider_id", sa.Uuid(), nullable=False),
        sa.Column("scheme_name", sa.Text(), nullable=False),
        sa.Column("operation_name", sa.Text(), nullable=False),
        sa.Column("high_water_mark", sa.DateTime(timezone=True), nullable=True),
        sa.Column("dropped", sa.BigInteger(), server_default="0", nullable=False),
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
        sa.UniqueConstraint("number", name=op.f("scope_number_key")),
        schema="catlog",
    )


def _create_catalog() -> None:
    op.create_table(
        "catalog",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("number", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("provider_id", sa.Uuid(), nullable=False),
        sa.Column("scheme_id", sa.Uuid(), nullable=False),
        sa.Column("parent_id", sa.Uuid(), nullable=True),
        sa.Column("schedule_id", sa.Uuid(), nullable=True),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("as_of", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "arguments",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default="{}",
            nullable=False,
        ),
        sa.Column("operation", sa.Text(), nullable=True),
        sa.Column("is_full", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("job", sa.Text(), nullable=True),
        sa.Column(
            "settings", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False
        ),
        sa.Column("project_version", sa.Text(), nullable=True),
        sa.Column("priority", sa.Integer(), server_default="0", nullable=False),
        sa.Column("state", sa.Text(), server_default="waiting", nullable=False),
        sa.Column("errors", sa.Integer(), server_default="0", nullable=False),
        sa.Column("first_error", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("published", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("publish_failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("publish_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("purged_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "prune_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("'epoch'::timestamptz"),
            nullable=False,
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('waiting', 'loading', 'publishing', 'loaded', 'failed', 'cancelled',"
            " 'skipped')",
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
        sa.UniqueConstraint("job", name=op.f("catalog_job_key")),
        sa.UniqueConstraint("schedule_id", "due_at", name=op.f("catalog_schedule_id_due_at_key")),
        sa.UniqueConstraint("number", name=op.f("catalog_number_key")),
        schema="catlog",
    )
    op.create_index(
        "catalog_created_at_idx", "catalog", ["created_at"], unique=False, schema="catlog"
    )
    op.create_index(
        "catalog_ended_idx",
        "catalog",
        ["scheme_id", "state", "finished_at"],
        unique=False,
        schema="catlog",
        postgresql_where=sa.text("finished_at IS NOT NULL"),
    )
    op.create_index(
        "catalog_failed_idx",
        "catalog",
        ["created_at"],
        unique=False,
        schema="catlog",
        postgresql_where=sa.text("state = 'failed'"),
    )
    op.create_index(
        "catalog_prune_idx",
        "catalog",
        ["prune_at"],
        unique=False,
        schema="catlog",
        postgresql_where=sa.text("finished_at IS NOT NULL"),
    )
    op.create_index(
        "catalog_scheme_idx", "catalog", ["scheme_id", "created_at"], unique=False, schema="catlog"
    )
    op.create_index(
        "catalog_schedule_open_idx",
        "catalog",
        ["schedule_id"],
        unique=False,
        schema="catlog",
        postgresql_where=sa.text("state IN ('waiting', 'loading', 'publishing')"),
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


def _create_catalog_summary() -> None:
    op.create_table(
        "catalog_summary",
        sa.Column("scheme_id", sa.Uuid(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("first_number", sa.BigInteger(), nullable=False),
        sa.Column("last_number", sa.BigInteger(), nullable=False),
        sa.Column("first_created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_finished_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("loaded", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("cancelled", sa.Integer(), nullable=False),
        sa.Column("skipped", sa.Integer(), nullable=False),
        sa.Column("instances", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("accepted", sa.BigInteger(), nullable=False),
        sa.Column("rejected", sa.BigInteger(), nullable=False),
        sa.Column("dropped", sa.BigInteger(), nullable=False),
        sa.Column("published", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.ForeignKeyConstraint(
            ["scheme_id"],
            ["catlog.catalog_scheme.id"],
            name=op.f("catalog_summary_scheme_id_fkey"),
        ),
        sa.PrimaryKeyConstraint("scheme_id", "day", name=op.f("catalog_summary_pkey")),
        schema="catlog",
    )


def _create_pruned_due_time() -> None:
    op.create_table(
        "pruned_due_time",
        sa.Column("schedule_id", sa.Uuid(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("times", postgresql.ARRAY(sa.DateTime(timezone=True)), nullable=False),
        sa.ForeignKeyConstraint(
            ["schedule_id"],
            ["catlog.schedule.id"],
            name=op.f("pruned_due_time_schedule_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("schedule_id", "day", name=op.f("pruned_due_time_pkey")),
        schema="catlog",
    )


def _create_catalog_scheme_operation() -> None:
    op.create_table(
        "catalog_scheme_operation",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("scheme_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("spider", sa.Text(), nullable=False),
        sa.Column("executor", sa.Text(), server_default="scrapy", nullable=False),
        sa.Column(
            "arguments",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default="{}",
            nullable=False,
        ),
        sa.Column("for_each", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column(
            "standalone_arguments",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default="[]",
            nullable=False,
        ),
        sa.Column(
            "hosts", postgresql.JSONB(astext_type=sa.Text()), server_default="[]", nullable=False
        ),
        sa.Column("mode", sa.Text(), server_default="snapshot", nullable=False),
        sa.Column("isolate", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column(
            "tags", postgresql.JSONB(astext_type=sa.Text()), server_default="[]", nullable=False
        ),
        sa.Column(
            "tolerate", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False
        ),
        sa.Column("min_results", sa.Integer(), server_default="1", nullable=False),
        sa.Column("timeout", sa.Double(), server_default="3600", nullable=False),
        sa.Column("start_timeout", sa.Double(), server_default="120", nullable=False),
        sa.Column("stall_timeout", sa.Double(), server_default="600", nullable=False),
        sa.Column("backoff_base", sa.Double(), server_default="10", nullable=False),
        sa.Column("backoff_cap", sa.Double(), server_default="600", nullable=False),
        sa.Column("keep", sa.Double(), nullable=True),
        sa.Column("overlap", sa.Double(), nullable=True),
        sa.Column("refresh", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
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


def _create_catalog_scheme_operation_instance() -> None:
    op.create_table(
        "catalog_scheme_operation_instance",
        sa.Column("id", sa.Uuid(), server_default=sa.text("catlog.uuid7()"), nullable=False),
        sa.Column("catalog_id", sa.Uuid(), nullable=False),
        sa.Column("operation_id", sa.Uuid(), nullable=False),
        sa.Column("provider_id", sa.Uuid(), nullable=False),
        sa.Column("part", sa.Text(), server_default="", nullable=False),
        sa.Column(
            "arguments",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default="{}",
            nullable=False,
        ),
        sa.Column("priority", sa.Integer(), server_default="0", nullable=False),
        sa.Column("position", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("state", sa.Text(), server_default="new", nullable=False),
        sa.Column("requeued", sa.Boolean(), server_default=sa.text("false"), nullable=False),
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
        "instance_open_idx",
        "catalog_scheme_operation_instance",
        ["catalog_id", "position"],
        unique=False,
        schema="catlog",
        postgresql_where=sa.text("state IN ('new', 'running')"),
    )
    op.create_index(
        "instance_queue_idx",
        "catalog_scheme_operation_instance",
        ["provider_id", sa.literal_column("priority DESC"), "position"],
        unique=False,
        schema="catlog",
        postgresql_where=sa.text("state = 'new' AND NOT requeued"),
    )
    op.create_index(
        "instance_requeued_idx",
        "catalog_scheme_operation_instance",
        ["provider_id", sa.literal_column("priority DESC"), "position"],
        unique=False,
        schema="catlog",
        postgresql_where=sa.text("state = 'new' AND requeued"),
    )


def _create_cursor() -> None:
    op.create_table(
        "cursor",
        sa.Column("scope_id", sa.Uuid(), nullable=False),
        sa.Column("part", sa.Text(), nullable=False),
        sa.Column("operation_id", sa.Uuid(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("catalog_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["operation_id"],
            ["catlog.catalog_scheme_operation.id"],
            name=op.f("cursor_operation_id_fkey"),
        ),
        sa.ForeignKeyConstraint(
            ["scope_id"], ["catlog.scope.id"], name=op.f("cursor_scope_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("scope_id", "part", name=op.f("cursor_pkey")),
        schema="catlog",
    )


def _create_kind() -> None:
    op.create_table(
        "kind",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("operation_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("key", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("fields", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("foreign_type", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column(
            "indexes", postgresql.JSONB(astext_type=sa.Text()), server_default="[]", nullable=False
        ),
        sa.Column(
            "unique_fields",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default="[]",
            nullable=False,
        ),
        sa.Column(
            "untracked",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default="[]",
            nullable=False,
        ),
        sa.Column(
            "item_rules",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default="{}",
            nullable=False,
        ),
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


def _create_part_mark() -> None:
    op.create_table(
        "part_mark",
        sa.Column("scope_id", sa.Uuid(), nullable=False),
        sa.Column("part", sa.Text(), nullable=False),
        sa.Column("as_of", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["scope_id"],
            ["catlog.scope.id"],
            name=op.f("part_mark_scope_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("scope_id", "part", name=op.f("part_mark_pkey")),
        schema="catlog",
    )


def _create_instance_attempt() -> None:
    op.create_table(
        "instance_attempt",
        sa.Column("instance_id", sa.Uuid(), nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=True),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "as_of",
            sa.DateTime(timezone=True),
            server_default=sa.text("catlog.reading_time()"),
            nullable=False,
        ),
        sa.Column("begun_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deadline_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("log", sa.Text(), nullable=True),
        sa.Column(
            "limits", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False
        ),
        sa.Column("stats", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("accepted", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("rejected", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("dropped", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("read_from", sa.Text(), nullable=True),
        sa.Column("read_to", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "outcome IN ('done', 'failed', 'incomplete', 'lost', 'timed_out', 'cancelled',"
            " 'released')",
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
    op.create_index(
        "instance_attempt_finished_at_idx",
        "instance_attempt",
        ["finished_at"],
        unique=False,
        schema="catlog",
        postgresql_where=sa.text("finished_at IS NOT NULL"),
    )
