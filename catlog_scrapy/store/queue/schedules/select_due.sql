-- Lock the schedules that are due, longest overdue first, with the current version of their scheme.
-- Parameters: ids (NULL for all schedules), limit, due_at (the placeholder of the due time).
--
-- now() instead of clock_timestamp(): only a stable function can be an index condition.
SELECT d.id, d.cron, d.timezone, d.arguments, d.catch_up, d.next_due_at AS due_at, now() AS now,
    p.name AS provider, p.secrets, s.id AS scheme_id,
    EXISTS (SELECT 1 FROM catlog.catalog_scheme_operation o
            WHERE o.scheme_id = s.id AND strpos(o.arguments::text, :due_at) > 0) AS uses_due_at
FROM catlog.schedule d
JOIN catlog.provider p ON p.id = d.provider_id
LEFT JOIN catlog.catalog_scheme s
    ON s.provider_id = d.provider_id AND s.name = d.scheme_name AND s.retired_at IS NULL
WHERE d.enabled AND d.next_due_at <= now()
  AND (CAST(:ids AS uuid[]) IS NULL OR d.id = ANY(CAST(:ids AS uuid[])))
ORDER BY d.next_due_at, d.id LIMIT :limit
FOR NO KEY UPDATE OF d SKIP LOCKED
