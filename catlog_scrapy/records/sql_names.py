"""Names of views and columns that SQL can use without quotes and without surprises."""

import re

from catlog_scrapy.records.sql_types import MAX_NAME_BYTES

SQL_NAME = re.compile(r"[a-z][a-z0-9_]*")
# Key words that PostgreSQL (14 to 18) reserves: as the name of a table they need quotes.
RESERVED = """
all analyse analyze and any array as asc asymmetric authorization binary both case cast check
collate collation column concurrently constraint create cross current_catalog current_date
current_role current_schema current_time current_timestamp current_user default deferrable desc
distinct do else end except false fetch for foreign freeze from full grant group having ilike
in initially inner intersect into is isnull join lateral leading left like limit localtime
localtimestamp natural not notnull null offset on only or order outer overlaps placing primary
references returning right select session_user similar some symmetric system_user table
tablesample then to trailing true union unique user using variadic verbose when where window
with
"""
RESERVED_WORDS = frozenset(RESERVED.split())
# Columns that every table of PostgreSQL has.
SYSTEM_COLUMNS = frozenset({"cmax", "cmin", "ctid", "tableoid", "xmax", "xmin"})


def name_mistake(name: str) -> str | None:
    """Return the mistake in the name of a view or a column, with its remedy, or None."""
    if SQL_NAME.fullmatch(name) and len(name) <= MAX_NAME_BYTES:
        return None
    return (
        "is not a valid SQL name; use a lower-case letter, then letters, digits and underscores,"
        f" at most {MAX_NAME_BYTES} in all"
    )


def view_mistake(name: str) -> str | None:
    """Return the mistake in the name of a view, with its remedy, or None.

    PostgreSQL looks names up among its own tables first, and those begin with `pg_`.
    """
    if name.startswith("pg_"):
        return "is a name of PostgreSQL's own tables; use a name without pg_ in front"
    if name in RESERVED_WORDS:
        return "is a key word of SQL, which readers would have to quote; use another name"
    return name_mistake(name)


def column_mistake(name: str) -> str | None:
    """Return the mistake in the name of a column, with its remedy, or None."""
    if name in SYSTEM_COLUMNS:
        return "is a column that PostgreSQL adds to every table; use another name"
    return name_mistake(name)
