"""SELECTs of typed views: current records, as-of records and history of a kind.

Each SELECT is a plain projection of the kind's tables, through which the planner sees.
"""

from collections.abc import Mapping

from catlog_scrapy.store.definitions import KindDefinition
from catlog_scrapy.store.record_tables.layout import column_names
from catlog_scrapy.store.views.naming import HISTORY_SUFFIX

# Column that page queries order by: the primary key of the record tables.
ID_COLUMN = "_id"
# Last column of the views, which tells apart the records of several providers.
PROVIDER_COLUMN = "provider"

# Instant of the as-of views: a setting, or now. As a subquery it is evaluated once a statement.
AS_OF_INSTANT = (
    "(SELECT coalesce(nullif(current_setting('catlog.as_of', true), '')::timestamptz, now()))"
)


def typed_views(kinds: Mapping[str, KindDefinition]) -> dict[str, str]:
    """Return the SELECTs of the current and history views of *kinds*, by view name."""
    views: dict[str, str] = {}
    for kind in kinds.values():
        views[kind.name] = current_view(kind)
        views[kind.name + HISTORY_SUFFIX] = history_view(kind)
    return views


def current_view(kind: KindDefinition, *, with_id: bool = False) -> str:
    """Return the SELECT of the current records of *kind*; *with_id* puts ID_COLUMN in front."""
    return f"""SELECT {_id("r", with_id)}{column_names(kind, "r")},
            r._created_at AS created_at, r._updated_at AS updated_at{_provider(kind, "r")}
        FROM {kind.table} r WHERE r._removed_at IS NULL"""


def as_of_view(kind: KindDefinition) -> str:
    """Return the SELECT of the records of *kind* at AS_OF_INSTANT."""
    return "\nUNION ALL\n".join(as_of_parts(kind, AS_OF_INSTANT))


def as_of_parts(kind: KindDefinition, instant: str, *, with_id: bool = False) -> tuple[str, str]:
    """Return the SELECTs of the present and the former states of *kind* at the SQL *instant*.

    *with_id* puts ID_COLUMN in front. A removed record has a version only; a restored record has
    both. PostgreSQL drops the join with the primary key if nobody reads `created_at`.
    """
    return (
        f"""SELECT {_id("r", with_id)}{column_names(kind, "r")},
            r._created_at AS created_at, r._updated_at AS updated_at{_provider(kind, "r")}
        FROM {kind.table} r
        WHERE r._removed_at IS NULL AND r._updated_at <= {instant}""",
        f"""SELECT {_id("v", with_id)}{column_names(kind, "v")},
            r._created_at AS created_at, v._valid_from AS updated_at{_provider(kind, "v")}
        FROM {kind.versions_table} v LEFT JOIN {kind.table} r ON r._id = v._id
        WHERE v._valid_from <= {instant} AND v._valid_to > {instant}""",
    )


def history_view(kind: KindDefinition, condition: str = "") -> str:
    """Return the SELECT of all states of the records of *kind*; `change` says what ended a state.

    *condition* on the tables' rows `s` is appended to both WHERE clauses.
    """
    names = column_names(kind, "s")
    return f"""SELECT {names}, s._valid_from AS valid_from, s._valid_to AS valid_to,
            s._change AS change{_provider(kind, "s")}
        FROM {kind.versions_table} s WHERE true{condition}
        UNION ALL
        SELECT {names}, s._updated_at, NULL, NULL{_provider(kind, "s")}
        FROM {kind.table} s
        WHERE s._removed_at IS NULL{condition}"""


def _id(table: str, with_id: bool) -> str:
    return f"{table}.{ID_COLUMN}, " if with_id else ""


def _provider(kind: KindDefinition, table: str) -> str:
    """Return the last column, the provider's name, unless a field of the kind has its name.

    A join, also one that PostgreSQL drops because nobody reads the name, would rule out scans of
    an index alone.
    """
    if PROVIDER_COLUMN in dict(kind.columns):
        return ""
    return f""",
            (SELECT p.name FROM catlog.provider p WHERE p.number = {table}._provider)
                AS {PROVIDER_COLUMN}"""
