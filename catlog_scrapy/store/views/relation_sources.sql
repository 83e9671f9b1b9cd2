-- Sources of one relation: whether it is a view of catlog, the relations that it reads, and whether
-- it calls volatile functions. Parameters: schema, name, comment (LIKE pattern of catlog's views).
--
-- The parse tree is searched, not the text, in which a string may look like a call. A function that
-- is not built in (oid 16384 or higher) may read any table.
SELECT c.relkind = 'v' AND n.nspname = 'public'
        AND coalesce(obj_description(c.oid, 'pg_class') LIKE :comment, false) AS is_own,
    c.relkind = 'v' AND (
        r.ev_action::text LIKE '%{SQLVALUEFUNCTION%' OR EXISTS (
            SELECT 1
            FROM regexp_matches(r.ev_action::text, ':(func|opfunc)id (\d+)', 'g') AS called
            JOIN pg_proc p ON p.oid = called[2]::oid
            WHERE p.provolatile = 'v' OR p.provolatile = 's' AND (
                p.oid >= 16384 OR p.proname IN ('now', 'transaction_timestamp',
                    'statement_timestamp', 'current_setting', 'age'))
        )) AS is_volatile,
    coalesce((
        SELECT jsonb_agg(DISTINCT
            jsonb_build_object('schema', m.nspname, 'name', t.relname))
        FROM pg_depend d JOIN pg_class t ON t.oid = d.refobjid
        JOIN pg_namespace m ON m.oid = t.relnamespace
        WHERE c.relkind IN ('v', 'm') AND d.objid = r.oid AND d.classid = 'pg_rewrite'::regclass
          AND d.refclassid = 'pg_class'::regclass AND t.oid <> c.oid), '[]') AS reads
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_rewrite r ON r.ev_class = c.oid AND r.rulename = '_RETURN'
WHERE n.nspname = :schema AND c.relname = :name
