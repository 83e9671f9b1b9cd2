-- Return the first max_instances instances of a provider that a claim may take, by priority, then
-- age. All instances that were never claimed and wait before queue_head are ignored: the caller
-- knows that there are none that it may take. PostgreSQL inlines the function.
CREATE FUNCTION catlog.eligible_instances(
    the_provider uuid, queue_head bigint, only_catalogs uuid[], only_executor text, refused uuid[],
    worker_tags jsonb, max_instances bigint
) RETURNS TABLE (id uuid, catalog_id uuid, priority int, "position" bigint)
LANGUAGE sql STABLE AS $$
    (SELECT i.id, i.catalog_id, i.priority, i.position
     FROM catlog.catalog_scheme_operation_instance i
     JOIN catlog.catalog_scheme_operation o ON o.id = i.operation_id
     WHERE i.provider_id = the_provider AND i.state = 'new' AND NOT i.requeued
       AND i.position >= queue_head
       AND i.available_at <= now() AND o.executor = only_executor AND o.tags <@ worker_tags
       AND (only_catalogs IS NULL OR i.catalog_id = ANY(only_catalogs))
       AND o.id <> ALL(refused) AND i.catalog_id <> ALL(refused)
     ORDER BY i.priority DESC, i.position LIMIT max_instances)
    UNION ALL
    (SELECT i.id, i.catalog_id, i.priority, i.position
     FROM catlog.catalog_scheme_operation_instance i
     JOIN catlog.catalog_scheme_operation o ON o.id = i.operation_id
     WHERE i.provider_id = the_provider AND i.state = 'new' AND i.requeued
       AND i.available_at <= now() AND o.executor = only_executor AND o.tags <@ worker_tags
       AND (only_catalogs IS NULL OR i.catalog_id = ANY(only_catalogs))
       AND o.id <> ALL(refused) AND i.catalog_id <> ALL(refused)
     ORDER BY i.priority DESC, i.position LIMIT max_instances)
    ORDER BY 3 DESC, 4 LIMIT max_instances
$$
