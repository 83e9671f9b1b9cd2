-- Find, for each provider, the first position of an instance that waits and was never claimed, from
-- the position that the caller knows on, and the last position that was given out. For each
-- priority, the search ends at the first instance, however many wait.
SELECT p.id,
    (   WITH RECURSIVE first AS (
             (SELECT i.priority, i.position FROM catlog.catalog_scheme_operation_instance i
              WHERE i.provider_id = p.id AND i.state = 'new' AND NOT i.requeued
                AND i.position >= coalesce(hint.head, 0)
              ORDER BY i.priority DESC, i.position LIMIT 1)
             UNION ALL
             SELECT lower.priority, lower.position
             FROM first CROSS JOIN LATERAL (
                 SELECT i.priority, i.position FROM catlog.catalog_scheme_operation_instance i
                 WHERE i.provider_id = p.id AND i.state = 'new' AND NOT i.requeued
                   AND i.position >= coalesce(hint.head, 0) AND i.priority < first.priority
                 ORDER BY i.priority DESC, i.position LIMIT 1) AS lower)
         SELECT min(position) FROM first) AS head,
    pg_sequence_last_value(
        pg_get_serial_sequence('catlog.catalog_scheme_operation_instance', 'position')
    ) AS last_position,
    CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint) AS oldest_xid,
    CAST(CAST(pg_snapshot_xmax(pg_current_snapshot()) AS text) AS bigint) AS next_xid
FROM catlog.provider p
LEFT JOIN unnest(CAST(:providers AS uuid[]), CAST(:heads AS bigint[])) AS hint (id, head)
    ON hint.id = p.id
