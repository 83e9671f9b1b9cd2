-- A view of catlog with all its dependents: relations that read it, and their as-of views.
-- Parameters: name, as_of (schema of as-of views), comment (LIKE pattern of catlog's views).
WITH RECURSIVE dependent AS (
    SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname IN ('public', :as_of) AND c.relname = :name
      AND obj_description(c.oid, 'pg_class') LIKE :comment
    UNION
    SELECT further.oid FROM dependent, LATERAL (
        SELECT r.ev_class AS oid FROM pg_depend d
        JOIN pg_rewrite r ON r.oid = d.objid
        WHERE d.refobjid = dependent.oid AND d.refclassid = 'pg_class'::regclass
          AND d.classid = 'pg_rewrite'::regclass
        UNION ALL
        SELECT as_of_view.oid FROM pg_class c
        JOIN pg_class as_of_view ON as_of_view.relname = c.relname
            AND as_of_view.relnamespace = to_regnamespace(:as_of)
        WHERE c.oid = dependent.oid AND c.relnamespace = 'public'::regnamespace
          AND obj_description(c.oid, 'pg_class') LIKE :comment) AS further)
SELECT n.nspname AS schema, c.relname AS name,
    CAST(CAST(c.oid AS regclass) AS text) AS title,
    n.nspname IN ('public', :as_of) AND c.relkind = 'v'
        AND coalesce(obj_description(c.oid, 'pg_class') LIKE :comment, false) AS is_own
FROM dependent JOIN pg_class c ON c.oid = dependent.oid
JOIN pg_namespace n ON n.oid = c.relnamespace ORDER BY 2, 1
