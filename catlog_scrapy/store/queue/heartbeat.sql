-- Renew the leases of running attempts, and reply to each attempt. The commit does not wait for the
-- disk: after a crash of the server nothing is reaped for one lease, so that a renewal may be lost.
WITH held AS (
    SELECT * FROM unnest(CAST(:instances AS uuid[]), CAST(:numbers AS int[]))
        AS held (instance, number)
),
-- The state is checked behind the lock: a search condition would let the planner read the whole index
-- of open instances, which looks empty to it, but may be full of dead entries.
free AS (
    SELECT i.id, i.state FROM catlog.catalog_scheme_operation_instance i
    JOIN held ON held.instance = i.id AND held.number = i.attempt
    JOIN catlog.instance_attempt a ON a.instance_id = i.id AND a.attempt = i.attempt
    WHERE a.deadline_at > clock_timestamp()
    FOR NO KEY UPDATE OF i SKIP LOCKED
),
renewed AS (
    UPDATE catlog.catalog_scheme_operation_instance i
    SET lease_expires_at = clock_timestamp() + make_interval(secs => :lease)
    FROM free WHERE i.id = free.id AND free.state = 'running'
)
SELECT set_config('synchronous_commit', 'off', true) AS synchronous_commit,
    coalesce(jsonb_object_agg(held.instance || '.' || held.number, CASE
        WHEN i.attempt <> held.number OR i.state IN ('new', 'done') THEN 'lost'
        WHEN i.state = 'running' AND c.state = 'loading' THEN
            CASE WHEN a.deadline_at > clock_timestamp() THEN 'go' ELSE 'timed_out' END
        ELSE 'cancel' END), '{}') AS replies
FROM held
JOIN catlog.catalog_scheme_operation_instance i ON i.id = held.instance
JOIN catlog.catalog c ON c.id = i.catalog_id
LEFT JOIN catlog.instance_attempt a
    ON a.instance_id = held.instance AND a.attempt = held.number
