-- Return the claims of those attempts that still run, in the order of the queue.
--
-- The state is checked in the aggregate, not in the search condition: it would let the planner read
-- the whole index of open instances, which looks empty to it, but may be full of dead entries.
CREATE FUNCTION catlog.read_claims(instances uuid[], numbers int[]) RETURNS jsonb
LANGUAGE plpgsql VOLATILE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    RETURN (
        SELECT coalesce(jsonb_agg(jsonb_build_object(
            'instance', i.id, 'number', i.attempt, 'catalog', i.catalog_id,
            'operation_id', i.operation_id, 'part', i.part, 'arguments', i.arguments,
            'given', ARRAY(SELECT jsonb_object_keys(c.arguments)),
            'settings', c.settings, 'project_version', c.project_version, 'provider', p.name,
            'provider_id', p.id, 'project', p.project, 'base_url', p.base_url, 'secrets', p.secrets, 'scheme', s.name,
            'operation', o.name, 'spider', o.spider, 'mode', o.mode, 'isolate', o.isolate,
            'seconds', o.timeout, 'limits', a.limits,
            'age', extract(epoch FROM clock_timestamp() - a.started_at)::float8,
            'kinds', (
                SELECT coalesce(jsonb_agg(jsonb_build_object('name', k.name, 'key', k.key,
                    'fields', k.fields, 'foreign', k.foreign_type, 'untracked', k.untracked,
                    'rules', k.item_rules) ORDER BY k.name), '[]')
                FROM catlog.kind k
                WHERE k.operation_id = o.id)
            ) ORDER BY i.priority DESC, i.position) FILTER (WHERE i.state = 'running'), '[]')
        FROM unnest(instances, numbers) AS claimed (instance, number)
        JOIN catlog.instance_attempt a
            ON a.instance_id = claimed.instance AND a.attempt = claimed.number
        JOIN catlog.catalog_scheme_operation_instance i
            ON i.id = a.instance_id AND i.attempt = a.attempt
        JOIN catlog.catalog c ON c.id = i.catalog_id
        JOIN catlog.catalog_scheme_operation o ON o.id = i.operation_id
        JOIN catlog.catalog_scheme s ON s.id = o.scheme_id
        JOIN catlog.provider p ON p.id = i.provider_id
    );
END $$
