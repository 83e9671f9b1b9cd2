"""Plain tables like those of catlog, to compare queries and sizes."""

import re

from sqlalchemy import Engine, text

from benchmarks.common import run_sql

# Columns that a view shows without the underscore of the table.
SHOWN = re.compile(r"\b_(created_at|updated_at)\b")


def copy_indexes(engine: Engine, target: str) -> None:
    """Give *target*, with the columns of the view, the indexes of the products' table.

    The primary key is left out, and so are indexes with columns that the view does not show. The
    table has current records only, so that no index needs a condition.
    """
    with engine.connect() as connection:
        found = connection.execute(
            text("""
                SELECT pg_get_indexdef(x.indexrelid) FROM pg_index x
                WHERE x.indrelid = CAST('records.products' AS regclass) AND NOT x.indisprimary""")
        ).scalars()
        definitions = [
            SHOWN.sub(r"\1", index.partition(" USING ")[2]).partition(" WHERE ")[0]
            for index in found
        ]
    run_sql(
        engine,
        *(
            f"CREATE INDEX ON {target} USING {definition}"
            for definition in definitions
            if "(_" not in definition and ", _" not in definition
        ),
    )
