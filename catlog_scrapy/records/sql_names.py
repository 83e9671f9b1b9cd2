"""Names of kinds, views and fields that SQL takes without quotes."""

import re

SQL_NAME = re.compile(r"[a-z][a-z0-9_]*")
# PostgreSQL cuts longer identifiers (NAMEDATALEN - 1).
MAX_NAME_BYTES = 63
# PostgreSQL's limit is 1600 columns of a table; catlog has columns of its own, and the columns of
# removed fields stay.
MAX_FIELDS = 1500
# PostgreSQL's key words that cannot name a table without quotes (manual, appendix C).
_RESERVED = """
    all analyse analyze and any array as asc asymmetric authorization binary both case cast check
    collate collation column concurrently constraint create cross current_catalog current_date
    current_role current_schema current_time current_timestamp current_user default deferrable desc
    distinct do else end except false fetch for foreign freeze from full grant group having ilike in
    initially inner intersect into is isnull join lateral leading left like limit localtime
    localtimestamp natural not notnull null offset on only or order outer overlaps placing primary
    references returning right select session_user similar some symmetric system_user table
    tablesample then to trailing true union unique user using variadic verbose when where window
    with"""
RESERVED_WORDS = frozenset(_RESERVED.split())
# Schema pg_catalog comes first in every search path, so its relations hide those of this prefix.
SYSTEM_PREFIX = "pg_"
# Columns that every table of PostgreSQL has (manual, 5.6).
SYSTEM_COLUMNS = frozenset({"cmax", "cmin", "ctid", "tableoid", "xmax", "xmin"})


def name_mistake(name: str) -> str | None:
    """Return the mistake in a name of a field, a kind or a view."""
    if not SQL_NAME.fullmatch(name) or len(name) > MAX_NAME_BYTES:
        return (
            f"{name!r} is not a valid SQL name; use a lower-case letter, then letters, digits and"
            f" underscores, at most {MAX_NAME_BYTES} in all"
        )
    return None


def field_mistake(name: str) -> str | None:
    """Return the mistake in the name of a field."""
    if name in SYSTEM_COLUMNS:
        return f"{name!r} is a system column of every PostgreSQL table; rename the field"
    if name.startswith("_"):
        other = name.strip("_") or "id"
        return (
            f"{name!r} begins with an underscore, as only catlog's own columns do; rename the field"
            f' in the spider, such as item["{other}"] = item.pop("{name}")'
        )
    return name_mistake(name)


def view_mistake(name: str) -> str | None:
    """Return the mistake in the name of a kind or a view."""
    return reserved_mistake(name) or name_mistake(name)


def reserved_mistake(name: str) -> str | None:
    """Return the mistake in a name that SQL reads as something else than a kind or a view."""
    if name in RESERVED_WORDS:
        return f"{name!r} is a reserved word of SQL; use a name such as {name + '_records'!r}"
    if name.startswith(SYSTEM_PREFIX):
        return (
            f"{name!r} begins with {SYSTEM_PREFIX!r}, and PostgreSQL's own relations hide views of"
            f" such names; use a name such as {name.removeprefix(SYSTEM_PREFIX) or 'records'!r}"
        )
    return None
