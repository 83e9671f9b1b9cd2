-- Return the rows of a query of `scrapy sql`, with the rights of this function's owner.
--
-- In a function of this kind a statement can neither end its transaction nor change its role:
-- PostgreSQL refuses COMMIT, SET ROLE, RESET ROLE and SET SESSION AUTHORIZATION, as statements and
-- through set_config().
CREATE FUNCTION catlog.run_query(query text) RETURNS SETOF record
LANGUAGE plpgsql VOLATILE SECURITY DEFINER AS $$
BEGIN
    RETURN QUERY EXECUTE query;
END $$
