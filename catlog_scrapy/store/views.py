"""What SQL readers see: a typed view for each kind, one of its history, and the project's own."""

import hashlib
import time
from collections.abc import Iterable, Mapping

from psycopg2.errors import DependentObjectsStillExist, LockNotAvailable
from sqlalchemy import Connection, Engine, exc

from catlog_scrapy.exceptions import DeclarationError
from catlog_scrapy.store.schemes import KindDefinition, ProviderDefinition
from catlog_scrapy.store.transactions import row, rows, run

# The comment by which our views are known, with a hash of what they were made from.
MARK = "catlog "
TRIES = 5


def check_views(
    connection: Connection,
    providers: Iterable[ProviderDefinition],
    views: Mapping[str, str],
) -> list[str]:
    """The lines of what is refused: names in `public` that are somebody else's."""
    wanted = {*views, *_kind_views(connection, providers)}
    taken = rows(
        connection,
        """SELECT relname AS name FROM pg_class c
           WHERE relnamespace = 'public'::regnamespace AND relname = ANY(CAST(:names AS text[]))
             AND NOT coalesce(obj_description(c.oid, 'pg_class') LIKE :mark, false)""",
        names=sorted(wanted),
        mark=MARK + "%",
    )
    return [
        f'public."{found["name"]}" is no view of catlog; rename it, or the kind or file so named'
        for found in taken
    ]


def apply_views(
    engine: Engine,
    providers: Iterable[ProviderDefinition],
    views: Mapping[str, str],
    *,
    check_only: bool = False,
) -> list[tuple[str, str]]:
    """Make the views that are not as they should be; the signs and names of what was done.

    Raises DeclarationError for a SELECT that PostgreSQL refuses, or where a view that is not
    catlog's depends on one whose columns change.
    """
    with engine.connect() as connection:
        wanted = _kind_views(connection, providers) | dict(views)
        existing = _existing(connection)
        kinds = [] if check_only else [kind["name"] for kind in rows(connection, ALL_KINDS)]
    changed = {name: sql for name, sql in wanted.items() if existing.get(name) != _hash(sql)}
    gone = sorted(set(existing) - set(wanted))
    done = [("~" if name in existing else "+", name) for name in changed]
    done += [("-", name) for name in gone]
    if check_only:
        return done
    for kind in kinds:
        _patiently(engine, lambda connection, kind=kind: _partition(connection, kind))  # type: ignore[misc]
    for name in gone:
        _patiently(engine, lambda connection, name=name: _drop(connection, [name], wanted))  # type: ignore[misc]
    # Kinds first, in any order; the project's own may read each other, so try until all stand.
    pending = sorted(changed, key=lambda name: (name in views, name))
    while pending:
        failed: dict[str, str] = {}
        for name in pending:
            try:
                _patiently(
                    engine,
                    lambda connection, name=name: _replace(connection, name, wanted),  # type: ignore[misc]
                )
            except exc.ProgrammingError as error:
                failed[name] = str(error.orig).strip().splitlines()[0]
        if len(failed) == len(pending):
            told = "\n  ".join(
                f"views/{name}.sql: {reason}; correct its SELECT" for name, reason in failed.items()
            )
            raise DeclarationError(f"views that PostgreSQL refused:\n  {told}")
        pending = list(failed)
    return done


ALL_KINDS = "SELECT DISTINCT name FROM catlog.kind ORDER BY name"


def _kind_views(connection: Connection, providers: Iterable[ProviderDefinition]) -> dict[str, str]:
    """The SELECTs of all kinds there are or will be, by the name of their view."""
    kinds = {
        found["name"]: KindDefinition(
            found["name"],
            tuple(found["key"]),
            tuple((part["name"], part["type"]) for part in found["fields"]),
            found["foreign_type"],
        )
        # The newest definition; one of a scheme that is not retired before any other.
        for found in rows(
            connection,
            """SELECT DISTINCT ON (k.name) k.* FROM catlog.kind k
               JOIN catlog.catalog_scheme_operation o ON o.id = k.operation_id
               JOIN catlog.catalog_scheme s ON s.id = o.scheme_id
               ORDER BY k.name, s.retired_at DESC NULLS FIRST, s.version DESC""",
        )
    }
    for provider in providers:
        for scheme in provider.schemes:
            for operation in scheme.operations:
                kinds.update({kind.name: kind for kind in operation.kinds})
    views: dict[str, str] = {}
    for kind in kinds.values():
        views[kind.name] = current_view(kind)
        views[f"{kind.name}_history"] = history_view(kind)
    return views


def current_view(kind: KindDefinition) -> str:
    """The SELECT of the current records of *kind*."""
    return f"""SELECT {_columns(kind)}, created_at, updated_at
        FROM catlog.record WHERE kind = '{kind.name}' AND removed_at IS NULL"""


def history_view(kind: KindDefinition) -> str:
    """The SELECT of all states of the records of *kind*; `change` says what ended one."""
    return f"""SELECT {_columns(kind)}, valid_from, valid_to, change
        FROM catlog.record_version WHERE kind = '{kind.name}'
        UNION ALL
        SELECT {_columns(kind)}, updated_at, NULL, NULL
        FROM catlog.record WHERE kind = '{kind.name}' AND removed_at IS NULL"""


def _columns(kind: KindDefinition) -> str:
    columns = [f'{_expression(name, type_)} AS "{name}"' for name, type_ in kind.fields]
    return ", ".join([*columns, *(["data"] if kind.foreign else [])])


def _expression(name: str, sql_type: str) -> str:
    if sql_type == "text":
        return f"data ->> '{name}'"
    if sql_type == "jsonb":
        return f"nullif(data -> '{name}', 'null'::jsonb)"
    if sql_type == "interval":
        return f"make_interval(secs => (data ->> '{name}')::double precision)"
    return f"(data ->> '{name}')::{sql_type}"


def _existing(connection: Connection) -> dict[str, str]:
    """Our views with their hashes."""
    found = rows(
        connection,
        """SELECT relname AS name, obj_description(oid, 'pg_class') AS mark FROM pg_class
           WHERE relnamespace = 'public'::regnamespace AND relkind = 'v'
             AND obj_description(oid, 'pg_class') LIKE :mark""",
        mark=MARK + "%",
    )
    return {view["name"]: view["mark"].removeprefix(MARK) for view in found}


def _hash(sql: str) -> str:
    return hashlib.sha256(sql.encode()).hexdigest()[:16]


def _partition(connection: Connection, kind: str) -> None:
    """The kind's own table. Attached, not created as a partition: that lock is the weaker one."""
    table = f'catlog."record_{kind[:40]}_{hashlib.sha256(kind.encode()).hexdigest()[:8]}"'
    if row(
        connection,
        """SELECT 1 FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
           WHERE i.inhparent = 'catlog.record'::regclass
             AND pg_get_expr(c.relpartbound, c.oid) = :bound""",
        bound=f"FOR VALUES IN ('{kind}')",
    ):
        return
    run(connection, f"CREATE TABLE IF NOT EXISTS {table} (LIKE catlog.record INCLUDING ALL)")
    run(connection, f"ALTER TABLE catlog.record ATTACH PARTITION {table} FOR VALUES IN ('{kind}')")


def _replace(connection: Connection, name: str, wanted: Mapping[str, str]) -> None:
    try:
        with connection.begin_nested():
            _create(connection, name, wanted[name])
    except exc.ProgrammingError as error:
        # Columns that go or change their type: the view has to be made anew, and what reads it.
        if row(connection, "SELECT 1 WHERE to_regclass(:name) IS NULL", name=f'public."{name}"'):
            raise
        dependents = [view for view in _dependents(connection, name) if view in wanted]
        try:
            with connection.begin_nested():
                _drop(connection, [*dependents, name], wanted)
        except DeclarationError:
            raise
        for view in [name, *reversed(dependents)]:
            try:
                _create(connection, view, wanted[view])
            except exc.ProgrammingError as broken:
                if view == name:
                    raise error from broken
                raise


def _dependents(connection: Connection, name: str) -> list[str]:
    """Our views that read *name*, the outermost first."""
    found = rows(
        connection,
        """WITH RECURSIVE reads AS (
               SELECT CAST(to_regclass(:name) AS oid) AS oid, 0 AS depth
               UNION
               SELECT r.ev_class, reads.depth + 1 FROM reads
               JOIN pg_depend d ON d.refobjid = reads.oid AND d.classid = 'pg_rewrite'::regclass
               JOIN pg_rewrite r ON r.oid = d.objid AND r.ev_class <> reads.oid)
           SELECT c.relname AS name, max(depth) AS depth FROM reads
           JOIN pg_class c ON c.oid = reads.oid
           WHERE depth > 0 AND obj_description(c.oid, 'pg_class') LIKE :mark
           GROUP BY c.relname ORDER BY 2 DESC""",
        name=f'public."{name}"',
        mark=MARK + "%",
    )
    return [view["name"] for view in found]


def _create(connection: Connection, name: str, sql: str) -> None:
    # The driver's own cursor: a colon or a percent sign in a SELECT is no parameter.
    connection.exec_driver_sql(
        f'CREATE OR REPLACE VIEW public."{name}" AS {sql.strip().rstrip(";")}'.replace("%", "%%")
    )
    connection.exec_driver_sql(f"COMMENT ON VIEW public.\"{name}\" IS '{MARK}{_hash(sql)}'")


def _drop(connection: Connection, names: list[str], wanted: Mapping[str, str]) -> None:
    dependents = [view for name in names for view in _dependents(connection, name)]
    doomed = [*(view for view in dependents if view not in names and view not in wanted), *names]
    try:
        for name in dict.fromkeys(doomed):
            run(connection, f'DROP VIEW IF EXISTS public."{name}"')
    except exc.InternalError as error:
        if not isinstance(error.orig, DependentObjectsStillExist):
            raise
        detail = str(error.orig.diag.message_detail).splitlines()[0]
        raise DeclarationError(
            f'the view "{names[-1]}" has to change, but {detail}; drop that one, apply again, and'
            " make it anew."
        ) from error


def _patiently(engine: Engine, work) -> None:  # type: ignore[no-untyped-def]
    """Do *work* in a transaction that waits for locks only briefly, a few times."""
    for attempt in range(1, TRIES + 1):
        try:
            with engine.begin() as connection:
                run(connection, "SET LOCAL lock_timeout = '2s'")
                # Two applies at once must not make the same thing.
                run(connection, "SELECT pg_advisory_xact_lock(4226004)")
                work(connection)
                return
        except exc.OperationalError as error:
            if not isinstance(error.orig, LockNotAvailable) or attempt == TRIES:
                raise
            time.sleep(0.2 * attempt)
