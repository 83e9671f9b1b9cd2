-- Return the reason why an open catalog waits, or NULL: that of the instance that is next to run, a
-- failed publication, or a scheme that is loaded first.
CREATE FUNCTION catlog.catalog_wait_reason(the_catalog uuid) RETURNS text
LANGUAGE plpgsql STABLE AS $$
DECLARE
    waiting record;
BEGIN
    SELECT c.state, c.publish_at, s.after INTO waiting
    FROM catlog.catalog c JOIN catlog.catalog_scheme s ON s.id = c.scheme_id
    WHERE c.id = the_catalog;
    CASE waiting.state
        WHEN 'waiting' THEN
            RETURN waiting.after || ' is loaded first';
        WHEN 'loading' THEN
            RETURN (
                SELECT catlog.wait_reason(i.id) FROM catlog.catalog_scheme_operation_instance i
                WHERE i.catalog_id = the_catalog AND i.state = 'new'
                ORDER BY i.available_at, i.priority DESC, i.position LIMIT 1);
        WHEN 'publishing' THEN
            IF waiting.publish_at > clock_timestamp() THEN
                RETURN format('next try to publish in %s s',
                    ceil(extract(epoch FROM waiting.publish_at - clock_timestamp())));
            END IF;
        ELSE NULL;
    END CASE;
    RETURN NULL;
END $$
