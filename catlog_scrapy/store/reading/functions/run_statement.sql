-- Run a statement of `scrapy sql` that is not a query, such as SET, with the rights of this
-- function's owner. With has_rows, as for EXPLAIN and SHOW, return its rows.
CREATE FUNCTION catlog.run_statement(statement text, has_rows boolean) RETURNS SETOF json
LANGUAGE plpgsql VOLATILE SECURITY DEFINER AS $$
DECLARE
    found record;
BEGIN
    IF has_rows THEN
        FOR found IN EXECUTE statement LOOP
            RETURN NEXT row_to_json(found);
        END LOOP;
    ELSE
        EXECUTE statement;
    END IF;
END $$
