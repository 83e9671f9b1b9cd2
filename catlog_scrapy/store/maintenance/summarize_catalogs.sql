-- Add the catalogs `ids` to the summaries of their schemes and days.
WITH gone AS (
    SELECT *, CAST(created_at AT TIME ZONE 'UTC' AS date) AS day FROM catlog.catalog
    WHERE id = ANY(CAST(:ids AS uuid[]))),
changes AS (
    SELECT scheme_id, day, jsonb_object_agg(change, records) AS published
    FROM (SELECT g.scheme_id, g.day, e.key AS change, sum(CAST(e.value AS bigint)) AS records
          FROM gone g CROSS JOIN LATERAL jsonb_each_text(g.published) AS e GROUP BY 1, 2, 3) AS counted
    GROUP BY 1, 2)
INSERT INTO catlog.catalog_summary AS s (scheme_id, day, first_number, last_number,
    first_created_at, last_finished_at, loaded, failed, cancelled, skipped, instances, attempts,
    accepted, rejected, dropped, published)
SELECT g.scheme_id, g.day, min(g.number), max(g.number), min(g.created_at), max(g.finished_at),
    count(*) FILTER (WHERE g.state = 'loaded'), count(*) FILTER (WHERE g.state = 'failed'),
    count(*) FILTER (WHERE g.state = 'cancelled'), count(*) FILTER (WHERE g.state = 'skipped'),
    sum(n.instances), sum(n.attempts), sum(n.accepted), sum(n.rejected), sum(n.dropped),
    coalesce((SELECT c.published FROM changes c
              WHERE c.scheme_id = g.scheme_id AND c.day = g.day), '{}')
FROM gone g
CROSS JOIN LATERAL (
    SELECT count(DISTINCT i.id) AS instances, count(a.instance_id) AS attempts,
        coalesce(sum(a.accepted) FILTER (WHERE a.outcome = 'done'), 0) AS accepted,
        coalesce(sum(a.rejected) FILTER (WHERE a.outcome = 'done'), 0) AS rejected,
        coalesce(sum(a.dropped) FILTER (WHERE a.outcome = 'done'), 0) AS dropped
    FROM catlog.catalog_scheme_operation_instance i
    LEFT JOIN catlog.instance_attempt a ON a.instance_id = i.id
    WHERE i.catalog_id = g.id) AS n
GROUP BY g.scheme_id, g.day
ON CONFLICT (scheme_id, day) DO UPDATE SET
    first_number = least(s.first_number, excluded.first_number),
    last_number = greatest(s.last_number, excluded.last_number),
    first_created_at = least(s.first_created_at, excluded.first_created_at),
    last_finished_at = greatest(s.last_finished_at, excluded.last_finished_at),
    loaded = s.loaded + excluded.loaded, failed = s.failed + excluded.failed,
    cancelled = s.cancelled + excluded.cancelled, skipped = s.skipped + excluded.skipped,
    instances = s.instances + excluded.instances, attempts = s.attempts + excluded.attempts,
    accepted = s.accepted + excluded.accepted, rejected = s.rejected + excluded.rejected,
    dropped = s.dropped + excluded.dropped,
    published = (
        SELECT coalesce(jsonb_object_agg(key, records), '{}')
        FROM (SELECT key, sum(CAST(value AS bigint)) AS records
              FROM (SELECT * FROM jsonb_each_text(s.published)
                    UNION ALL SELECT * FROM jsonb_each_text(excluded.published)) AS sources
              GROUP BY key) AS added)
