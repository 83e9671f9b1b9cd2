-- Open a cursor on a query of `scrapy sql`, so that its columns can be read; no row is read from it.
--
-- With the parentheses the text can only be one query: a SELECT, VALUES, TABLE or WITH. A cursor on
-- another statement would run it later, with the rights of the session.
CREATE FUNCTION catlog.describe_query(query text, name refcursor) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER AS $$
BEGIN
    OPEN name FOR EXECUTE 'SELECT * FROM (' || query || E'\n) AS query';
END $$
