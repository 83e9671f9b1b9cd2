-- Give the functions of `scrapy sql` to a role that can only read, if this role is a superuser.
-- The functions of another owner have its rights: it owns catlog's schemas, and a read-only
-- transaction keeps it from writing. PUBLIC must not read with the rights of either.
DO $$
DECLARE
    bounded regprocedure;
BEGIN
    IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'catlog_reader') THEN
            BEGIN
                CREATE ROLE catlog_reader NOLOGIN;
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL; -- another database of this server was quicker
            END;
        END IF;
        IF NOT pg_has_role('catlog_reader', 'pg_read_all_data', 'USAGE') THEN
            GRANT pg_read_all_data, pg_read_all_settings, pg_read_all_stats TO catlog_reader;
        END IF;
    END IF;
    FOR bounded IN
        SELECT oid FROM pg_proc
        WHERE pronamespace = 'catlog'::regnamespace AND prosecdef
          AND proname IN ('describe_query', 'run_query', 'run_statement')
    LOOP
        IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
            EXECUTE format('ALTER FUNCTION %s OWNER TO catlog_reader', bounded);
        END IF;
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', bounded);
    END LOOP;
END $$
