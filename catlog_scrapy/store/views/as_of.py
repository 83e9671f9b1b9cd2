"""The twins in `as_of`: a view as it was at the instant that `catlog.as_of` names."""

import re
from collections.abc import Collection

from psycopg2.errors import InvalidTableDefinition
from sqlalchemy import Connection, exc

from catlog_scrapy.store.sql import execute, row, rows
from catlog_scrapy.store.views.typed import AS_OF_SCHEMA, UNREADABLE_SUFFIX


class AsOfViewMissing(Exception):
    """A view reads another whose twin is not made yet. Raised and caught within `store`."""


# What a SELECT can be refused with. Locks and lost connections are no fault of it.
SELECT_ERRORS = (
    exc.ProgrammingError,
    exc.DataError,
    exc.IntegrityError,
    exc.InternalError,
    exc.NotSupportedError,
    AsOfViewMissing,
)


def changes_columns(error: Exception) -> bool:
    """Whether a view cannot be replaced, only dropped and made anew."""
    return isinstance(getattr(error, "orig", None), InvalidTableDefinition)


def create_as_of_view(
    connection: Connection, name: str, select: str | None, mark: str, twins: Collection[str]
) -> None:
    """Make the twin of the view *name*, of *select* or, without one, of what the view itself reads.

    *twins* are the names of all views that have or get one. A view of which none can be made gets
    one that says so when it is read: it may be read by others. Raises what is SELECT_ERRORS.
    """
    if select is not None:
        _create(connection, name, select, mark)
        return
    try:
        with connection.begin_nested():
            _make_own(connection, name, mark, twins)
    except SELECT_ERRORS as error:
        if isinstance(error, AsOfViewMissing) or changes_columns(error):
            raise
        _create(connection, name, _refusing(connection, name), mark + UNREADABLE_SUFFIX)


def _make_own(connection: Connection, name: str, mark: str, twins: Collection[str]) -> None:
    """The same SELECT, with the names in it looked up among the twins first.

    PostgreSQL prints a name unqualified unless something else in the SELECT is called the same.
    """
    found = row(
        connection,
        "SELECT pg_get_viewdef(CAST(:view AS regclass)) AS sql",
        view=f'public."{name}"',
    )
    select = found["sql"] if found else ""
    _create(connection, name, select, mark)
    left = _read_as_now(connection, name, twins)
    if not left:
        return
    missing = [view for view, has_twin in left.items() if not has_twin]
    if missing:
        raise AsOfViewMissing(missing)
    _create(connection, name, _qualified(select, left), mark)
    if _read_as_now(connection, name, twins):
        raise exc.NotSupportedError(None, None, Exception("it reads what is now"))


def _create(connection: Connection, name: str, select: str, mark: str) -> None:
    execute(connection, f"SET LOCAL search_path = {AS_OF_SCHEMA}, public")
    execute(connection, f'CREATE OR REPLACE VIEW {AS_OF_SCHEMA}."{name}" AS\n{select}')
    execute(connection, "SET LOCAL search_path = public")
    execute(connection, f"COMMENT ON VIEW {AS_OF_SCHEMA}.\"{name}\" IS '{mark}'")


def _read_as_now(connection: Connection, name: str, twins: Collection[str]) -> dict[str, bool]:
    """The views in `public` that a twin reads although they have twins, or will; which have."""
    found = rows(
        connection,
        """SELECT DISTINCT c.relname AS name,
               to_regclass(format('%I.%I', CAST(:past AS text), c.relname)) IS NOT NULL AS has_twin
           FROM pg_rewrite r
           JOIN pg_depend d ON d.objid = r.oid AND d.classid = 'pg_rewrite'::regclass
               AND d.refclassid = 'pg_class'::regclass
           JOIN pg_class c ON c.oid = d.refobjid AND c.relnamespace = 'public'::regnamespace
           WHERE r.ev_class = CAST(:view AS regclass)
             AND c.relname = ANY(CAST(:twins AS text[]))""",
        past=AS_OF_SCHEMA,
        view=f'{AS_OF_SCHEMA}."{name}"',
        twins=list(twins),
    )
    return {view["name"]: view["has_twin"] for view in found}


# What is quoted; or a name in `public`, quoted or not.
PUBLIC_NAME = re.compile(r"""('(?:[^']|'')*')|\bpublic\.("(?:[^"]|"")+"|\w+)|("(?:[^"]|"")*")""")


def _qualified(select: str, names: Collection[str]) -> str:
    def twin(found: re.Match[str]) -> str:
        name = found[2]
        return f"{AS_OF_SCHEMA}.{name}" if name and name.strip('"') in names else found[0]

    return PUBLIC_NAME.sub(twin, select)


def _refusing(connection: Connection, name: str) -> str:
    """A SELECT with the columns of a view; who reads it is told that it has no past."""
    columns = rows(
        connection,
        """SELECT quote_ident(attname) AS name, format_type(atttypid, atttypmod) AS type
           FROM pg_attribute WHERE attrelid = CAST(:view AS regclass) AND attnum > 0
           ORDER BY attnum""",
        view=f'public."{name}"',
    )
    names = ", ".join(f"CAST(NULL AS {column['type']}) AS {column['name']}" for column in columns)
    return f"SELECT {names} WHERE concat('the view {name} cannot be read as of a time')::boolean"
