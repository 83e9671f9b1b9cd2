-- Return the reason why an instance waits: its next attempt is later, its provider runs as many
-- instances as it may, no node has its tags, or the nodes have no free slot. NULL if the instance
-- does not wait, or if a worker may take it now. Only nodes are known: `scrapy work` and external
-- executors are not registered.
CREATE FUNCTION catlog.wait_reason(the_instance uuid) RETURNS text
LANGUAGE plpgsql STABLE AS $$
DECLARE
    waiting record;
    running bigint;
    fleet record;
    tags text;
BEGIN
    SELECT i.available_at, i.provider_id, o.executor, o.tags, p.name AS provider, p.max_running,
        c.errors, s.max_errors
    INTO waiting
    FROM catlog.catalog_scheme_operation_instance i
    JOIN catlog.catalog_scheme_operation o ON o.id = i.operation_id
    JOIN catlog.catalog_scheme s ON s.id = o.scheme_id
    JOIN catlog.catalog c ON c.id = i.catalog_id
    JOIN catlog.provider p ON p.id = i.provider_id
    WHERE i.id = the_instance AND i.state = 'new' AND c.state = 'loading';
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF waiting.available_at > clock_timestamp() THEN
        RETURN format('next attempt in %s s (%s of %s)',
            ceil(extract(epoch FROM waiting.available_at - clock_timestamp())),
            waiting.errors + 1, waiting.max_errors);
    END IF;
    IF waiting.max_running IS NOT NULL THEN
        SELECT count(*) INTO running FROM catlog.catalog_scheme_operation_instance r
        WHERE r.provider_id = waiting.provider_id AND r.node IS NOT NULL;
        IF running >= waiting.max_running THEN
            RETURN format('%s of %s running for %s', running, waiting.max_running,
                waiting.provider);
        END IF;
    END IF;
    SELECT string_agg(tag, ', ' ORDER BY tag) INTO tags
    FROM jsonb_array_elements_text(waiting.tags) AS listed (tag);
    IF waiting.executor = 'external' THEN
        RETURN concat('an external executor must claim it', ', with the tags ' || tags);
    END IF;
    -- Without nodes that are silent, as list_nodes calls them.
    SELECT count(*) AS nodes, sum(n.slots) AS slots, sum(n.running) AS running INTO fleet
    FROM catlog.node n
    WHERE n.state = 'up' AND n.tags @> waiting.tags
      AND n.polled_at > clock_timestamp() - make_interval(secs => greatest(10, 5 * n.poll));
    IF fleet.nodes = 0 AND tags IS NOT NULL THEN
        RETURN format('no node has the tags %s', tags);
    END IF;
    IF fleet.running >= fleet.slots THEN
        RETURN concat(format('%s of %s slots taken on %s', fleet.running, fleet.slots,
            CASE fleet.nodes WHEN 1 THEN 'the node' ELSE fleet.nodes || ' nodes' END),
            ' with the tags ' || tags);
    END IF;
    RETURN NULL;
END $$
