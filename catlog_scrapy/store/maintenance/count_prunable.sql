-- Count the results, rejected items and unfinished results that pruning would delete in batches.
-- Parameters: now, default, longest, max_keep (`keep` in seconds), grace (seconds), and the arrays firsts and
-- ends: the bounds of the partitions that pruning would drop.
--
-- A done attempt has as many results as its worker accepted, so results are not read one by one.
WITH due AS (
    SELECT c.id, c.state, c.started_at, c.finished_at FROM catlog.catalog c
    WHERE c.finished_at IS NOT NULL AND c.prune_at <= :now),
expired AS (
    SELECT i.id, i.attempt
    FROM due c
    JOIN catlog.catalog_scheme_operation_instance i ON i.catalog_id = c.id
    JOIN catlog.catalog_scheme_operation o ON o.id = i.operation_id
    CROSS JOIN LATERAL (SELECT coalesce(o.keep, :default) AS keep) AS k
    CROSS JOIN (SELECT date_trunc('day', CAST(:now AS timestamptz), 'UTC') AS start) AS today
    WHERE NOT EXISTS (
        SELECT 1 FROM unnest(CAST(:firsts AS uuid[]), CAST(:ends AS uuid[])) AS g (first, last)
        WHERE i.id >= g.first AND i.id < g.last)
      AND c.finished_at + make_interval(secs => least(k.keep, :max_keep))
        + make_interval(secs => CASE WHEN k.keep >= :longest AND c.started_at < today.start
              THEN :grace ELSE 0 END) <= :now)
SELECT
    (SELECT coalesce(sum(a.accepted), 0)
     FROM expired e
     JOIN catlog.instance_attempt a ON a.instance_id = e.id AND a.attempt = e.attempt
     WHERE a.outcome = 'done' AND EXISTS (
         SELECT 1 FROM catlog.catalog_operation_instance_result r
         WHERE r.instance_id = e.id))::bigint AS results,
    (SELECT count(*) FROM expired e
     JOIN catlog.rejected_result r ON r.instance_id = e.id) AS rejected,
    (SELECT count(*)
     FROM due c
     JOIN catlog.catalog_scheme_operation_instance i ON i.catalog_id = c.id
     JOIN catlog.instance_attempt a ON a.instance_id = i.id AND a.outcome <> 'done'
     JOIN catlog.catalog_operation_instance_result r
         ON r.instance_id = a.instance_id AND r.attempt = a.attempt
     WHERE c.state <> 'skipped') AS unfinished
