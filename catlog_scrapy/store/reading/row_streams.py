"""Whole relations as CSV or lines of JSON, by COPY."""

from typing import BinaryIO

from psycopg2.sql import SQL
from sqlalchemy import Connection, text

from catlog_scrapy.store.reading.page_query import (
    PageQuery,
    PageSource,
    complete_order,
    filter_conditions,
    json_row,
    order_by,
    relation,
    where_clause,
)
from catlog_scrapy.store.sql import run

# Statement timeout of the COPY of a whole resource.
COPY_TIMEOUT_S = 3600
# JSON text never contains these control characters, so COPY writes each line unchanged.
RAW_COPY_FORMAT = "FORMAT csv, QUOTE E'\\x01', DELIMITER E'\\x02'"
# Types whose JSON text has no line breaks between values.
ON_ONE_LINE = frozenset(
    {
        "bigint",
        "boolean",
        "character varying",
        "date",
        "double precision",
        "integer",
        "interval",
        "jsonb",
        "numeric",
        "real",
        "smallint",
        "text",
        "timestamp with time zone",
        "timestamp without time zone",
        "uuid",
    }
)


def copy_rows(
    connection: Connection, source: PageSource, query: PageQuery, *, csv: bool, to: BinaryIO
) -> None:
    """Write all rows of *query* to the file *to*, as lines of JSON or as CSV."""
    conditions, values = filter_conditions(source, query)
    fields = ", ".join(f't."{name}"' for name in query.fields)
    columns = fields if csv else f"{_on_one_line(source, query)} AS line"
    written = text(
        f"""SELECT {columns} FROM {relation(source.sql)} AS t
            {where_clause(conditions)} ORDER BY {order_by(complete_order(source, query))}"""
    ).bindparams(**values)
    compiled = written.compile(connection.engine)
    run(connection, f"SET LOCAL statement_timeout = '{COPY_TIMEOUT_S}s'")
    driver = connection.connection.driver_connection
    if driver is None:
        raise RuntimeError("the connection has no driver connection; this is a bug.")
    with driver.cursor() as cursor:
        select = cursor.mogrify(str(compiled), compiled.params).decode()
        form = "FORMAT csv, HEADER" if csv else RAW_COPY_FORMAT
        cursor.copy_expert(SQL(f"COPY ({select}) TO STDOUT WITH ({form})").string, to)


def _on_one_line(source: PageSource, query: PageQuery) -> str:
    """Return the SQL expression of a row as JSON text without line breaks.

    Values of type json, or of types that contain json, may have line breaks between their parts.
    Within strings JSON escapes line breaks.
    """
    json = json_row(query.fields)
    if ON_ONE_LINE.issuperset(source.columns[name] for name in query.fields):
        return json
    return f"replace(replace({json}, E'\\n', ' '), E'\\r', ' ')"
