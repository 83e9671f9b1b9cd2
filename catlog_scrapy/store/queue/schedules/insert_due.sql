-- Insert the catalogs of due times, and return those that are new.
-- Parameters: arrays schedules, schemes, times, dated, bare and errors, one element a catalog.
--
-- A catalog with an error is skipped; a bare catalog lacks the arguments of its schedule; the data
-- of a dated catalog is valid for its due time. A due time whose catalog was pruned stays used.
INSERT INTO catlog.catalog (provider_id, scheme_id, schedule_id, due_at, as_of, arguments, is_full,
    origin, state, error, finished_at)
SELECT d.provider_id, g.scheme, d.id, g.due_at, CASE WHEN g.dated THEN g.due_at END,
    CASE WHEN g.bare THEN '{}' ELSE d.arguments END, g.bare OR d.arguments = '{}', 'schedule',
    CASE WHEN g.error IS NULL THEN 'waiting' ELSE 'skipped' END, g.error,
    CASE WHEN g.error IS NOT NULL THEN clock_timestamp() END
FROM unnest(CAST(:schedules AS uuid[]), CAST(:schemes AS uuid[]), CAST(:times AS timestamptz[]),
        CAST(:dated AS bool[]), CAST(:bare AS bool[]), CAST(:errors AS text[]))
    AS g (schedule, scheme, due_at, dated, bare, error)
JOIN catlog.schedule d ON d.id = g.schedule
WHERE NOT EXISTS (
    SELECT 1 FROM catlog.pruned_due_time u
    WHERE u.schedule_id = d.id AND u.day = CAST(g.due_at AT TIME ZONE 'UTC' AS date)
      AND g.due_at = ANY(u.times))
ON CONFLICT (schedule_id, due_at) DO NOTHING RETURNING id, state
