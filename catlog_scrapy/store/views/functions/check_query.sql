-- Check that a text is one statement that PostgreSQL understands. Nothing is run.
--
-- A cursor takes one statement only, and EXPLAIN without its rows executes nothing. Otherwise a
-- statement behind the SELECT of a view would run with the CREATE VIEW.
CREATE FUNCTION catlog.check_query(query text) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    plan refcursor;
BEGIN
    OPEN plan FOR EXECUTE 'EXPLAIN ' || query;
    CLOSE plan;
END $$
