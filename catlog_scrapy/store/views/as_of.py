"""As-of views, in the schema `as_of`: a view at the instant of the setting `catlog.as_of`."""

import re
from collections.abc import Collection

from psycopg2.errors import InvalidTableDefinition
from sqlalchemy import Connection, exc

from catlog_scrapy.store.sql import execute, rows, scalar
from catlog_scrapy.store.views.naming import AS_OF_SCHEMA, UNREADABLE_SUFFIX


class AsOfViewMissing(Exception):
    """A view reads another view whose as-of view does not exist yet.

    Raised by `create_as_of_view`, caught by `store.views.applying`.
    """


# Errors of a SELECT that PostgreSQL refuses; lock timeouts and lost connections are others.
SELECT_ERRORS = (
    exc.ProgrammingError,
    exc.DataError,
    exc.IntegrityError,
    exc.InternalError,
    exc.NotSupportedError,
    AsOfViewMissing,
)


def changes_columns(error: Exception) -> bool:
    """Return whether a view cannot be replaced because its columns change."""
    return isinstance(getattr(error, "orig", None), InvalidTableDefinition)


def create_as_of_view(
    connection: Connection,
    name: str,
    select: str | None,
    comment: str,
    with_as_of_view: Collection[str],
) -> None:
    """Create the as-of view of *name* from *select*, or from the view's own definition.

    *with_as_of_view* are the names of all views that have or get an as-of view. If PostgreSQL
    refuses the derived SELECT, the as-of view raises an error when it is read; it must exist, since
    other as-of views may read it. Raises SELECT_ERRORS.
    """
    if select is not None:
        _create(connection, name, select, comment)
        return
    try:
        with connection.begin_nested():
            _create_from_view(connection, name, comment, with_as_of_view)
    except SELECT_ERRORS as error:
        if isinstance(error, AsOfViewMissing) or changes_columns(error):
            raise
        unreadable = _unreadable_select(connection, name)
        _create(connection, name, unreadable, comment + UNREADABLE_SUFFIX)


def _create_from_view(
    connection: Connection, name: str, comment: str, with_as_of_view: Collection[str]
) -> None:
    """Create the as-of view from the view's SELECT, with names looked up in `as_of` first.

    PostgreSQL prints a name unqualified unless another name in the SELECT hides it.
    """
    select = scalar(
        connection, "SELECT pg_get_viewdef(CAST(:view AS regclass))", view=f'public."{name}"'
    )
    _create(connection, name, select, comment)
    qualified = _current_views_read(connection, name, with_as_of_view)
    if not qualified:
        return
    missing = [view for view, has_as_of_view in qualified.items() if not has_as_of_view]
    if missing:
        raise AsOfViewMissing(missing)
    _create(connection, name, _with_as_of_names(select, qualified), comment)
    if _current_views_read(connection, name, with_as_of_view):
        raise exc.NotSupportedError(None, None, Exception("the as-of view reads current records"))


def _create(connection: Connection, name: str, select: str, comment: str) -> None:
    execute(connection, f"SET LOCAL search_path = {AS_OF_SCHEMA}, public")
    execute(connection, f'CREATE OR REPLACE VIEW {AS_OF_SCHEMA}."{name}" AS\n{select}')
    execute(connection, "SET LOCAL search_path = public")
    execute(connection, f"COMMENT ON VIEW {AS_OF_SCHEMA}.\"{name}\" IS '{comment}'")


def _current_views_read(
    connection: Connection, name: str, with_as_of_view: Collection[str]
) -> dict[str, bool]:
    """Return the `public` views that an as-of view reads instead of their as-of views.

    The value says whether the as-of view exists.
    """
    found = rows(
        connection,
        """SELECT DISTINCT c.relname AS name,
               to_regclass(format('%I.%I', CAST(:as_of AS text), c.relname)) IS NOT NULL
                   AS has_as_of_view
           FROM pg_rewrite r
           JOIN pg_depend d ON d.objid = r.oid AND d.classid = 'pg_rewrite'::regclass
               AND d.refclassid = 'pg_class'::regclass
           JOIN pg_class c ON c.oid = d.refobjid AND c.relnamespace = 'public'::regnamespace
           WHERE r.ev_class = CAST(:view AS regclass)
             AND c.relname = ANY(CAST(:names AS text[]))""",
        as_of=AS_OF_SCHEMA,
        view=f'{AS_OF_SCHEMA}."{name}"',
        names=list(with_as_of_view),
    )
    return {view["name"]: view["has_as_of_view"] for view in found}


# A string; a name in `public`, quoted or not; another quoted name.
PUBLIC_NAME = re.compile(r"""('(?:[^']|'')*')|\bpublic\.("(?:[^"]|"")+"|\w+)|("(?:[^"]|"")*")""")


def _with_as_of_names(select: str, names: Collection[str]) -> str:
    def replace(found: re.Match[str]) -> str:
        name = found[2]
        return f"{AS_OF_SCHEMA}.{name}" if name and name.strip('"') in names else found[0]

    return PUBLIC_NAME.sub(replace, select)


def _unreadable_select(connection: Connection, name: str) -> str:
    """Return a SELECT with the columns of a view that raises an error when it is read."""
    columns = rows(
        connection,
        """SELECT quote_ident(attname) AS name, format_type(atttypid, atttypmod) AS type
           FROM pg_attribute WHERE attrelid = CAST(:view AS regclass) AND attnum > 0
           ORDER BY attnum""",
        view=f'public."{name}"',
    )
    names = ", ".join(f"CAST(NULL AS {column['type']}) AS {column['name']}" for column in columns)
    return f"SELECT {names} WHERE concat('the view {name} cannot be read as of a time')::boolean"
