-- Read the claims of running attempts, in the order of the queue.
SELECT i.id AS instance, i.attempt AS number, i.catalog_id AS catalog, i.operation_id, i.part, i.arguments,
    c.settings, c.project_version, p.name AS provider, p.project, p.base_url, p.secrets,
    s.name AS scheme, o.name AS operation, o.spider, o.mode, o.isolate, o.timeout AS seconds,
    a.limits, extract(epoch FROM clock_timestamp() - a.started_at)::float AS age,
    (SELECT coalesce(jsonb_agg(jsonb_build_object('name', k.name, 'key', k.key,
         'fields', k.fields, 'foreign', k.foreign_type) ORDER BY k.name), '[]')
     FROM catlog.kind k
     WHERE k.operation_id = o.id) AS kinds
FROM unnest(CAST(:instances AS uuid[]), CAST(:numbers AS int[])) AS claimed (instance, number)
JOIN catlog.instance_attempt a
    ON a.instance_id = claimed.instance AND a.attempt = claimed.number
JOIN catlog.catalog_scheme_operation_instance i
    ON i.id = a.instance_id AND i.attempt = a.attempt AND i.state = 'running'
JOIN catlog.catalog c ON c.id = i.catalog_id
JOIN catlog.catalog_scheme_operation o ON o.id = i.operation_id
JOIN catlog.catalog_scheme s ON s.id = o.scheme_id
JOIN catlog.provider p ON p.id = i.provider_id
ORDER BY i.priority DESC, i.position
