-- Find, for each provider, the first position of an instance that waits, was never claimed and may be
-- taken by a worker with these tags, from the position that the caller knows on; NULL if there is no
-- such instance. For each priority, the search ends at the first instance, however many wait. Also
-- returns the last position that was given out, the oldest open transaction, and the caller's own
-- transaction: all that began to write before it have a lower number. The upper bound of a snapshot
-- would not do: it is one past the newest transaction that has *ended*, so a newer one may be
-- writing.
CREATE FUNCTION catlog.find_queue_heads(
    only_executor text, worker_tags jsonb,
    hint_providers uuid[], hint_heads bigint[], hint_revisions int[]
) RETURNS TABLE (
    provider uuid, revision int, head bigint, last_position bigint, oldest_xid bigint,
    own_xid bigint
) LANGUAGE plpgsql VOLATILE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    RETURN QUERY
    SELECT p.id, p.tags_revision, (
            WITH RECURSIVE first AS (
                (SELECT i.priority, i.position FROM catlog.catalog_scheme_operation_instance i
                 JOIN catlog.catalog_scheme_operation o ON o.id = i.operation_id
                 WHERE i.provider_id = p.id AND i.state = 'new' AND NOT i.requeued
                   AND i.position >= known.head
                   AND o.executor = only_executor AND o.tags <@ worker_tags
                 ORDER BY i.priority DESC, i.position LIMIT 1)
                UNION ALL
                SELECT lower.priority, lower.position
                FROM first CROSS JOIN LATERAL (
                    SELECT i.priority, i.position FROM catlog.catalog_scheme_operation_instance i
                    JOIN catlog.catalog_scheme_operation o ON o.id = i.operation_id
                    WHERE i.provider_id = p.id AND i.state = 'new' AND NOT i.requeued
                      AND i.position >= known.head AND i.priority < first.priority
                      AND o.executor = only_executor AND o.tags <@ worker_tags
                    ORDER BY i.priority DESC, i.position LIMIT 1) AS lower)
            SELECT min(first.position) FROM first),
        pg_sequence_last_value(
            pg_get_serial_sequence('catlog.catalog_scheme_operation_instance', 'position')),
        CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint),
        CAST(CAST(pg_current_xact_id() AS text) AS bigint)
    FROM catlog.provider p
    LEFT JOIN unnest(hint_providers, hint_heads, hint_revisions) AS hint (id, head, revision)
        ON hint.id = p.id
    CROSS JOIN LATERAL (
        SELECT CASE WHEN hint.revision = p.tags_revision THEN hint.head ELSE 0 END AS head
    ) AS known;
END $$
