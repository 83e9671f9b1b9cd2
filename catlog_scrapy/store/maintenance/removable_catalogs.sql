-- Return the catalogs of the trees under `roots`, and whether each tree may be removed.
-- Parameters: roots, now, keep (of catalogs, in seconds), default (`keep` of results), max_keep,
-- latest.
--
-- A tree is removed as a whole, when its last results have expired. The newest catalogs of each
-- scheme and state stay.
WITH RECURSIVE tree AS (
    SELECT id AS root, id FROM catlog.catalog WHERE id = ANY(CAST(:roots AS uuid[]))
    UNION ALL
    SELECT tree.root, c.id FROM catlog.catalog c JOIN tree ON c.parent_id = tree.id)
SELECT tree.root, array_agg(tree.id) AS members, sum(used.instances)::bigint AS instances,
    bool_and(c.finished_at IS NOT NULL AND NOT used.is_held
        AND c.finished_at
            + make_interval(secs => least(greatest(:keep, used.keep), :max_keep)) <= :now
        AND newer.catalogs >= :latest) AS may_go
FROM tree
JOIN catlog.catalog c ON c.id = tree.id
CROSS JOIN LATERAL (
    SELECT count(*) AS instances, coalesce(bool_or(i.node IS NOT NULL), false) AS is_held,
        coalesce(max(coalesce(o.keep, :default)), 0) AS keep
    FROM catlog.catalog_scheme_operation_instance i
    JOIN catlog.catalog_scheme_operation o ON o.id = i.operation_id
    WHERE i.catalog_id = c.id) AS used
CROSS JOIN LATERAL (
    SELECT count(*) AS catalogs FROM (
        SELECT 1 FROM catlog.catalog n
        WHERE n.scheme_id = c.scheme_id AND n.state = c.state AND n.finished_at > c.finished_at
        LIMIT :latest) AS found) AS newer
GROUP BY tree.root
