-- End an attempt whose load is complete, if all of its results are stored. Returns one row: the
-- outcome of the attempt, and the number of its stored results. The outcome is `done`, `cancelled`
-- if the catalog has stopped, or the outcome that the attempt already had. It is NULL if results
-- are missing; then nothing changes. No row: the attempt is unknown.
CREATE FUNCTION catlog.complete_attempt(
    the_instance uuid, the_number int, counted_accepted bigint, counted_rejected bigint,
    counted_dropped bigint, crawl_stats jsonb, log_file text, cursor_end text,
    OUT is_known bool, OUT outcome text, OUT stored bigint
) LANGUAGE plpgsql VOLATILE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    the_catalog uuid;
    ancestor uuid;
    parent uuid;
    stop_error text;
    instance_state text;
BEGIN
    is_known := false;
    -- Before the catalog is locked, because a million rows take a moment to count. Only this worker
    -- writes rows of the attempt.
    -- EXECUTE, because a kept plan would lock the partitions of all days.
    EXECUTE format(
        'SELECT count(*) FROM catlog.catalog_operation_instance_result
         WHERE instance_id = %L AND attempt = %s', the_instance, the_number) INTO stored;

    -- The order of locks: ancestors from the top, the catalog, the instance.
    SELECT c.id, c.parent_id INTO the_catalog, parent
    FROM catlog.catalog_scheme_operation_instance i JOIN catlog.catalog c ON c.id = i.catalog_id
    WHERE i.id = the_instance;
    IF parent IS NOT NULL THEN
        FOR ancestor IN
            WITH RECURSIVE up AS (
                SELECT c.id, c.parent_id, 0 AS depth FROM catlog.catalog c WHERE c.id = parent
                UNION ALL
                SELECT c.id, c.parent_id, up.depth + 1
                FROM catlog.catalog c JOIN up ON c.id = up.parent_id)
            SELECT up.id FROM up ORDER BY up.depth DESC
        LOOP
            PERFORM FROM catlog.catalog c WHERE c.id = ancestor FOR NO KEY UPDATE;
        END LOOP;
    END IF;
    SELECT c.error INTO stop_error FROM catlog.catalog c WHERE c.id = the_catalog
    FOR NO KEY UPDATE;
    SELECT true, i.state, a.outcome INTO is_known, instance_state, complete_attempt.outcome
    FROM catlog.catalog_scheme_operation_instance i
    JOIN catlog.instance_attempt a ON a.instance_id = i.id AND a.attempt = the_number
    WHERE i.id = the_instance FOR NO KEY UPDATE OF i;
    IF complete_attempt.outcome IS NOT NULL OR NOT FOUND THEN
        RETURN;
    END IF;
    IF instance_state = 'cancelled' THEN
        complete_attempt.outcome := 'cancelled';
    ELSIF stored = counted_accepted THEN
        complete_attempt.outcome := 'done';
        stop_error := NULL;
    ELSE
        RETURN;
    END IF;

    UPDATE catlog.instance_attempt a
    SET outcome = complete_attempt.outcome, error = stop_error, finished_at = clock_timestamp(),
        log = coalesce(log_file, a.log), stats = crawl_stats, accepted = counted_accepted,
        rejected = counted_rejected, dropped = counted_dropped, read_to = cursor_end
    WHERE a.instance_id = the_instance AND a.attempt = the_number;
    UPDATE catlog.catalog_scheme_operation_instance i
    SET state = complete_attempt.outcome, node = NULL, lease_expires_at = NULL,
        lost = CASE complete_attempt.outcome WHEN 'done' THEN 0 ELSE i.lost END,
        available_at = clock_timestamp()
    WHERE i.id = the_instance;
    IF complete_attempt.outcome = 'done' THEN
        UPDATE catlog.catalog c SET state = 'publishing', publish_at = clock_timestamp()
        -- Backwards: while another session's snapshot is open, the index keeps the entries of the
        -- instances that are done, which were mostly the first ones. EXISTS would ignore the order.
        WHERE c.id = the_catalog AND c.state = 'loading' AND (
            SELECT i.position FROM catlog.catalog_scheme_operation_instance i
            WHERE i.catalog_id = the_catalog AND i.state IN ('new', 'running')
            ORDER BY i.position DESC LIMIT 1) IS NULL;
    END IF;
END $$
