-- Claim up to max_instances instances of one provider, by priority, then age. Returns one row: the
-- claims as read_claims returns them, and what the claim hints learn. hint_providers, hint_heads,
-- hint_revisions and hint_since are the hints of the caller.
--
-- A function, because PostgreSQL keeps the plans of its statements for the session, also behind
-- PgBouncer. VOLATILE: each statement must see what the former statements have waited for. A plan
-- for the given values would be made anew for each call, and costs more than its execution. A plan
-- without scans of whole tables stays good while the tables grow: without sequential scans, and
-- without hash and merge joins, which read a whole index instead.
CREATE FUNCTION catlog.claim_instances(
    revision text, worker text, max_instances int, lease_s float8,
    only_catalogs uuid[], only_executor text, refused uuid[], worker_tags jsonb,
    log_folder text, hint_providers uuid[], hint_heads bigint[], hint_revisions int[],
    hint_since timestamptz[],
    OUT database_revision text, OUT provider uuid, OUT running_since timestamptz, OUT claims jsonb
) LANGUAGE plpgsql VOLATILE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    limit_running int;
    running bigint;
    head bigint;
    since timestamptz;
    found_ids uuid[];
    unread_catalogs uuid[];
    taken_ids uuid[];
    taken_numbers int[];
BEGIN
    claims := '[]';
    database_revision := (SELECT version_num FROM catlog.alembic_version);
    IF database_revision IS DISTINCT FROM revision THEN
        RETURN;
    END IF;

    -- Lock the provider that is next to run, among those with an eligible instance. The highest
    -- priority comes first. Of equal priorities, the provider with the fewest running instances
    -- comes first, not the one that waits longest: its backlog would starve the others.
    -- A hint from a clock that was ahead would hide what was claimed since.
    SELECT p.id, p.max_running, known.head,
        CASE WHEN hint.since <= now() THEN hint.since ELSE '-infinity' END
    INTO provider, limit_running, head, since
    FROM catlog.provider p
    LEFT JOIN unnest(hint_providers, hint_heads, hint_revisions, hint_since)
        AS hint (id, head, revision, since) ON hint.id = p.id
    -- A head of former tags may have passed instances that the worker may take by now.
    CROSS JOIN LATERAL (
        SELECT CASE WHEN hint.revision = p.tags_revision THEN hint.head ELSE 0 END AS head
    ) AS known
    CROSS JOIN LATERAL (
        SELECT e.priority
        FROM catlog.eligible_instances(
            p.id, known.head, only_catalogs, only_executor, refused, worker_tags, 1) AS e) AS first
    CROSS JOIN LATERAL (
        SELECT count(*) AS running FROM catlog.catalog_scheme_operation_instance r
        WHERE r.provider_id = p.id AND r.node IS NOT NULL
          AND r.available_at >= CASE WHEN hint.since <= now() THEN hint.since
              ELSE '-infinity' END) AS now
    WHERE p.max_running IS NULL OR p.max_running > now.running
    ORDER BY first.priority DESC, now.running, random() LIMIT 1
    FOR NO KEY UPDATE OF p SKIP LOCKED;
    IF provider IS NULL THEN
        RETURN;
    END IF;

    -- Only a new statement sees everything that ran when the provider's row was locked. The locking
    -- statement does not: it would let more run than max_running.
    SELECT count(*), least(min(r.available_at), clock_timestamp() - interval '1 second')
    INTO running, running_since
    FROM catlog.catalog_scheme_operation_instance r
    WHERE r.provider_id = provider AND r.node IS NOT NULL AND r.available_at >= since;

    SELECT array_agg(next.id), array_agg(DISTINCT next.catalog_id) FILTER (WHERE next.is_first)
    INTO found_ids, unread_catalogs
    FROM (
        SELECT e.id, e.catalog_id, c.as_of IS NULL AS is_first
        FROM catlog.eligible_instances(
            provider, head, only_catalogs, only_executor, refused, worker_tags,
            greatest(0, least(max_instances, limit_running - running))) AS e
        JOIN catlog.catalog c ON c.id = e.catalog_id) AS next;
    IF found_ids IS NULL THEN
        RETURN;
    END IF;

    -- Catalogs that are claimed for the first time get their as_of now.
    IF unread_catalogs IS NOT NULL THEN
        UPDATE catlog.catalog c SET as_of = clock_timestamp()
        FROM (SELECT id FROM catlog.catalog
              WHERE id = ANY(unread_catalogs) AND as_of IS NULL
              ORDER BY id FOR NO KEY UPDATE SKIP LOCKED) AS first
        WHERE c.id = first.id;
    END IF;

    -- Set the free instances to running and insert their attempts, with the limits that they run
    -- under. The states are checked behind the lock, not in the search condition, so that the
    -- planner never searches the indexes of what is open by them.
    WITH free AS (
        SELECT i.id, i.state, c.state AS catalog_state
        FROM catlog.catalog_scheme_operation_instance i
        JOIN catlog.catalog c ON c.id = i.catalog_id
        WHERE i.id = ANY(found_ids) AND c.as_of IS NOT NULL
        ORDER BY i.id FOR NO KEY UPDATE OF i SKIP LOCKED
    ),
    taken AS (
        UPDATE catlog.catalog_scheme_operation_instance i
        SET state = 'running', attempt = attempt + 1, node = worker,
            available_at = clock_timestamp(),
            lease_expires_at = clock_timestamp() + make_interval(secs => lease_s)
        FROM free
        WHERE i.id = free.id AND free.state = 'new' AND free.catalog_state = 'loading'
        RETURNING i.id, i.attempt, i.operation_id
    ),
    made AS (
        INSERT INTO catlog.instance_attempt (instance_id, attempt, node, log, deadline_at, limits)
        SELECT taken.id, taken.attempt, worker,
            log_folder || '/' || taken.id || '.' || taken.attempt || '.log',
            clock_timestamp() + make_interval(secs => o.timeout),
            jsonb_build_object(
                'tolerate', o.tolerate, 'min_results', o.min_results, 'timeout', o.timeout,
                'start_timeout', o.start_timeout, 'stall_timeout', o.stall_timeout,
                'backoff_base', o.backoff_base, 'backoff_cap', o.backoff_cap,
                'max_errors', s.max_errors, 'overlap', o.overlap, 'refresh', o.refresh,
                'hosts', o.hosts)
        FROM taken
        JOIN catlog.catalog_scheme_operation o ON o.id = taken.operation_id
        JOIN catlog.catalog_scheme s ON s.id = o.scheme_id
        RETURNING instance_id, instance_attempt.attempt
    )
    SELECT array_agg(instance_id), array_agg(attempt) INTO taken_ids, taken_numbers FROM made;
    IF taken_ids IS NOT NULL THEN
        claims := catlog.read_claims(taken_ids, taken_numbers);
    END IF;
END $$
