-- Set the free instances among :ids to running and insert their attempts, with the limits
-- that they run under. The state is checked behind the lock, not in the search condition,
-- so that the planner never searches the queue's index by it.
WITH free AS (
    SELECT i.id, i.state
    FROM catlog.catalog_scheme_operation_instance i
    JOIN catlog.catalog c ON c.id = i.catalog_id
    WHERE i.id = ANY(CAST(:ids AS uuid[])) AND c.state = 'loading' AND c.as_of IS NOT NULL
    ORDER BY i.id FOR NO KEY UPDATE OF i SKIP LOCKED
),
taken AS (
    UPDATE catlog.catalog_scheme_operation_instance i
    SET state = 'running', attempt = attempt + 1, node = :node, available_at = clock_timestamp(),
        lease_expires_at = clock_timestamp() + make_interval(secs => :lease)
    FROM free
    WHERE i.id = free.id AND free.state = 'new'
    RETURNING i.id, i.attempt, i.operation_id
)
INSERT INTO catlog.instance_attempt (instance_id, attempt, node, log, deadline_at, limits)
SELECT taken.id, taken.attempt, :node,
    CAST(:logs AS text) || '/' || taken.id || '.' || taken.attempt || '.log',
    clock_timestamp() + make_interval(secs => o.timeout),
    jsonb_build_object(
        'tolerate', o.tolerate, 'min_results', o.min_results, 'timeout', o.timeout,
        'start_timeout', o.start_timeout, 'stall_timeout', o.stall_timeout,
        'backoff_base', o.backoff_base, 'backoff_cap', o.backoff_cap,
        'max_errors', s.max_errors, 'overlap', o.overlap, 'refresh', o.refresh)
FROM taken
JOIN catlog.catalog_scheme_operation o ON o.id = taken.operation_id
JOIN catlog.catalog_scheme s ON s.id = o.scheme_id
RETURNING instance_id AS instance, attempt AS number
