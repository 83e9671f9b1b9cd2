"""SELECTs of typed views: current records, as-of records and history of a kind."""

from collections.abc import Mapping

from catlog_scrapy.store.definitions import KindDefinition
from catlog_scrapy.store.views.naming import HISTORY_SUFFIX

# Columns of the records' index under the names that page queries use. Names of fields never begin
# with an underscore.
INDEX_COLUMNS = {"_provider": "provider_id", "_kind": "kind", "_key": "key"}

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


def current_view(kind: KindDefinition) -> str:
    """Return the SELECT of the current records of *kind*.

    The UNION with an empty SELECT makes PostgreSQL extract the columns from `data` when it reads a
    row. Otherwise whole `data` values travel through sorts and joins (measured: a GROUP BY over a
    million records takes half the time with the UNION).
    """
    types = _types(kind)
    names = ", ".join(f'"{name}"' for name, _ in types)
    nulls = ", ".join(f"NULL::{type_}" for _, type_ in types)
    return f"""SELECT {names}, created_at, updated_at FROM (
            SELECT {_columns(kind)}, created_at, updated_at,
                kind AS _kind, removed_at AS _removed_at FROM catlog.record
            UNION ALL
            SELECT {nulls}, NULL::timestamptz, NULL::timestamptz, NULL, NULL::timestamptz
            WHERE false
        ) AS records WHERE _kind = '{kind.name}' AND _removed_at IS NULL"""


def indexed_view(kind: KindDefinition) -> str:
    """Return the SELECT of the current records of *kind* with INDEX_COLUMNS in front.

    In the order of these columns the index finds a page, however deep.
    """
    return f"""SELECT {_index_columns()}{_columns(kind)}, created_at, updated_at
        FROM catlog.record WHERE kind = '{kind.name}' AND removed_at IS NULL"""


def as_of_view(kind: KindDefinition, *, by_index: bool = False) -> str:
    """Return the SELECT of the records of *kind* at AS_OF_INSTANT.

    *by_index* puts INDEX_COLUMNS in front. A removed record has a version only; a restored record
    has both. The key is unique in `record`, so PostgreSQL drops the join if nobody reads
    `created_at`.
    """
    names = ", ".join(f'"{name}"' for name, _ in _types(kind))
    if by_index:
        names = f"{', '.join(INDEX_COLUMNS)}, {names}"
    record_index, version_index = (_index_columns(), _index_columns("v.")) if by_index else ("", "")
    return f"""SELECT {names}, created_at, updated_at FROM (
            SELECT {record_index}{_columns(kind)}, created_at, updated_at FROM catlog.record
            WHERE kind = '{kind.name}' AND removed_at IS NULL AND updated_at <= {AS_OF_INSTANT}
            UNION ALL
            SELECT {version_index}{_columns(kind, "v.")}, r.created_at, v.valid_from
            FROM catlog.record_version v
            LEFT JOIN catlog.record r ON r.provider_id = v.provider_id AND r.key = v.key
                AND r.kind = '{kind.name}'
            WHERE v.kind = '{kind.name}' AND v.valid_from <= {AS_OF_INSTANT}
              AND v.valid_to > {AS_OF_INSTANT}
        ) AS states"""


def history_view(kind: KindDefinition, condition: str = "") -> str:
    """Return the SELECT of all states of the records of *kind*; `change` says what ended a state.

    *condition* is appended to both WHERE clauses.
    """
    return f"""SELECT {_columns(kind)}, valid_from, valid_to, change
        FROM catlog.record_version WHERE kind = '{kind.name}'{condition}
        UNION ALL
        SELECT {_columns(kind)}, updated_at, NULL, NULL
        FROM catlog.record WHERE kind = '{kind.name}' AND removed_at IS NULL{condition}"""


def _index_columns(table: str = "") -> str:
    return "".join(f"{table}{column} AS {name}, " for name, column in INDEX_COLUMNS.items())


def _types(kind: KindDefinition) -> list[tuple[str, str]]:
    return [*kind.fields, *([("data", "jsonb")] if kind.foreign else [])]


def _columns(kind: KindDefinition, table: str = "") -> str:
    columns = [f'{_expression(name, type_, table)} AS "{name}"' for name, type_ in kind.fields]
    return ", ".join([*columns, *([f"{table}data"] if kind.foreign else [])])


def _expression(name: str, sql_type: str, table: str = "") -> str:
    if sql_type == "text":
        return f"{table}data ->> '{name}'"
    if sql_type == "jsonb":
        return f"nullif({table}data -> '{name}', 'null'::jsonb)"
    if sql_type == "interval":
        return f"make_interval(secs => ({table}data ->> '{name}')::double precision)"
    return f"({table}data ->> '{name}')::{sql_type}"
