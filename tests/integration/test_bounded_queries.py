"""Statements of `scrapy sql` can read, but neither write, nor take other rights, nor run programs.

Each attack is made on a session of a superuser, and on that of a role that only owns the database.
"""

from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest
from sqlalchemy import make_url

from catlog_scrapy.db.engine import make_engine
from catlog_scrapy.db.migrations import upgrade
from catlog_scrapy.exceptions import NotPossible
from catlog_scrapy.store.reading.queries import BoundedSession
from tests.support.postgres import Postgres
from tests.support.project import Project

OWNER = "owner_of_catlog"
ADVISORY_LOCKS = """
    SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
    WHERE l.locktype = 'advisory' AND d.datname = current_database()"""


def execute(url: str, *statements: str) -> list[tuple[object, ...]]:
    """Execute statements as the session's role, each by itself; return the last one's rows."""
    connection = psycopg2.connect(plain(url))
    connection.autocommit = True
    with connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


def plain(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


@pytest.fixture(params=["superuser", "owner"])
def url(request: pytest.FixtureRequest, postgres: Postgres) -> Iterator[str]:
    """Return the URL of a migrated database, for a superuser or for a role that only owns it."""
    if request.param == "superuser":
        with postgres.clone() as cloned:
            yield cloned
        return
    with postgres.clone("template0") as empty:
        name = make_url(empty).database
        execute(
            empty,
            f"CREATE ROLE {OWNER}_{name} LOGIN",
            f"ALTER DATABASE {name} OWNER TO {OWNER}_{name}",
            f"GRANT ALL ON SCHEMA public TO {OWNER}_{name}",
        )
        try:
            owned = make_url(empty).set(username=f"{OWNER}_{name}").render_as_string()
            engine = make_engine(owned)
            upgrade(engine)
            engine.dispose()
            yield owned
        finally:
            execute(empty, f"DROP OWNED BY {OWNER}_{name}")
            execute(empty, f"ALTER DATABASE {name} OWNER TO catlog", f"DROP ROLE {OWNER}_{name}")


def run(url: str, *statements: str) -> list[list[object]]:
    """Run statements in one bounded session; return the last one's rows."""
    connection = psycopg2.connect(plain(url))
    try:
        with BoundedSession(connection) as session:
            results = [session.run(statement) for statement in statements]
        return [list(row) for row in results[-1].rows] if results[-1] else []
    finally:
        connection.close()


@pytest.fixture
def guarded(url: str) -> str:
    """Return the database's URL, with a table that attacks try to change."""
    execute(url, "CREATE TABLE public.precious (n int)", "INSERT INTO public.precious VALUES (1)")
    return url


def attack(url: str, *statements: str) -> str:
    """Run statements, of which at least one is refused; return the refusal."""
    with pytest.raises(NotPossible) as refused:
        run(url, *statements)
    assert execute(url, "SELECT n FROM public.precious") == [(1,)]
    assert execute(url, "SELECT count(*) FROM pg_class WHERE relname = 'pwned'") == [(0,)]
    return str(refused.value)


DELETE = "delete from precious"


@pytest.mark.parametrize(
    "statements",
    [
        (DELETE,),
        (f"commit; {DELETE}",),
        ("commit", DELETE),
        ("rollback", DELETE),
        ("end", DELETE),
        ("abort and chain", DELETE),
        ("begin", DELETE),
        ("savepoint s", DELETE),
        ("prepare transaction 'p'", DELETE),
        ("set transaction read write", DELETE),
        ("set session characteristics as transaction read write", DELETE),
        ("set transaction_read_only = off", DELETE),
        ("set local transaction_read_only = off", DELETE),
        ("set default_transaction_read_only = off", DELETE),
        ("reset transaction_read_only", DELETE),
        ("select set_config('transaction_read_only', 'off', false)", DELETE),
        ("select set_config('transaction_read_only', 'off', true)", DELETE),
        ("select 1; " + DELETE,),
        ("select 1) as query; " + DELETE + "; select * from (select 1",),
        ("select 1 --\n) as query; " + DELETE,),
        (f"with gone as ({DELETE} returning n) select * from gone",),
        (f"explain analyze {DELETE}",),
        (f"explain (analyze) {DELETE}",),
        ("select 1 as n into pwned",),
        ("create table pwned (n int)",),
        ("create temp table pwned (n int)",),
        ("create table pwned as select 1 as n",),
        ("create view pwned as select 1 as n",),
        ("select * from precious for update",),
        ("truncate precious",),
        ("copy precious from '/etc/passwd'",),
        (f"do $$ begin {DELETE}; end $$",),
        (f"do $$ begin commit; {DELETE}; end $$",),
        (f"prepare p as {DELETE}", "execute p"),
        ("call nothing()",),
        ("vacuum precious",),
        ("alter system set work_mem = '1MB'",),
        ("grant all on precious to public",),
        ("comment on table precious is 'x'",),
        ("listen x", DELETE),
        ("discard all", DELETE),
        (f"select query_to_xml('{DELETE}', true, true, '')",),
        (f"select * from catlog.run_statement('{DELETE}', false)",),
    ],
)
def test_statement_cannot_write(guarded: str, statements: tuple[str, ...]) -> None:
    attack(guarded, *statements)


@pytest.mark.parametrize(
    "statements",
    [
        ("set role catlog",),
        ("set session authorization catlog",),
        ("set local role catlog",),
        ("reset role", "select pg_read_file('/etc/hostname')"),
        ("set role none",),
        ("reset session authorization", "select pg_read_file('/etc/hostname')"),
        ("select set_config('role', 'catlog', false)",),
        ("select set_config('role', 'none', true)",),
        ("select set_config('session_authorization', 'catlog', false)",),
        ("do $$ begin perform set_config('role', 'catlog', true); end $$",),
        ("explain analyze select set_config('role', 'catlog', false)",),
        ("prepare p as select set_config('role', 'catlog', false)", "execute p"),
    ],
)
def test_statement_cannot_take_another_role(guarded: str, statements: tuple[str, ...]) -> None:
    attack(guarded, *statements)


@pytest.mark.parametrize(
    "statement",
    [
        "copy (select 1) to program 'touch FILE'",
        "copy (select 1) to 'FILE'",
        "explain analyze select lo_export(lo_from_bytea(0, 'x'), 'FILE')",
        "select lo_export(lo_from_bytea(0, 'x'), 'FILE')",
        "do $$ begin copy (select 1) to program 'touch FILE'; end $$",
        "select query_to_xml('copy (select 1) to program ''touch FILE''', true, true, '')",
        "select pg_read_file('/etc/hostname')",
        "select pg_ls_dir('/')",
        "select pg_reload_conf()",
        "select pg_rotate_logfile()",
        "load '/tmp/x.so'",
        "create extension dblink",
        "create function pwned() returns int language sql as 'select 1'",
    ],
)
def test_statement_cannot_run_a_program_or_touch_files(
    guarded: str, tmp_path: Path, statement: str
) -> None:
    file = tmp_path / "written"
    tmp_path.chmod(0o777)
    attack(guarded, statement.replace("FILE", str(file)))
    assert not file.exists()


def test_large_object_and_advisory_lock_of_a_query_do_not_outlive_it(guarded: str) -> None:
    for statement in ("select lo_from_bytea(0, 'x')", "select pg_advisory_lock(1)"):
        try:
            run(guarded, statement)
        except NotPossible:  # PostgreSQL 16 refuses large objects in a read-only transaction
            continue
    assert execute(guarded, "SELECT count(*) FROM pg_largeobject_metadata") == [(0,)]
    assert execute(guarded, ADVISORY_LOCKS) == [(0,)]


def test_function_with_the_rights_of_its_owner_cannot_write_in_a_query(guarded: str) -> None:
    execute(
        guarded,
        f"""CREATE FUNCTION public.evil() RETURNS int LANGUAGE plpgsql SECURITY DEFINER
            AS $$ BEGIN SET transaction_read_only = off; {DELETE}; RETURN 1; END $$""",
        f"""CREATE FUNCTION public.evil_role() RETURNS int LANGUAGE plpgsql
            AS $$ BEGIN RESET ROLE; {DELETE}; RETURN 1; END $$""",
    )
    attack(guarded, "select evil()")
    attack(guarded, "select evil_role()")


def test_role_that_may_become_a_superuser_cannot_do_so_in_a_query(guarded: str) -> None:
    user = make_url(guarded).username
    if user == "catlog":
        return
    admin = make_url(guarded).set(username="catlog").render_as_string()
    execute(admin, f"GRANT catlog TO {user}")
    try:
        attack(guarded, "select set_config('role', 'catlog', false)")
        attack(guarded, "set role catlog")
    finally:
        execute(admin, f"REVOKE catlog FROM {user}")


def test_functions_of_scrapy_sql_are_closed_to_other_roles(guarded: str) -> None:
    found = execute(
        guarded,
        """SELECT count(*), bool_or(has_function_privilege('public', oid, 'EXECUTE'))
           FROM pg_proc WHERE pronamespace = 'catlog'::regnamespace AND prosecdef""",
    )
    assert found == [(3, False)]


def test_functions_of_a_restored_database_are_bounded_before_their_first_use(
    postgres: Postgres,
) -> None:
    """A dump without owners, restored by a superuser, gives the functions to the superuser."""
    with postgres.clone() as url:
        for name in ("run_query(text)", "run_statement(text, boolean)"):
            execute(url, f"ALTER FUNCTION catlog.{name} OWNER TO catlog")
        with pytest.raises(NotPossible, match="denied"):
            run(url, "copy (select 1) to program 'true'")
        assert run(url, "select current_user::text") == [["catlog_reader"]]


@pytest.mark.parametrize(
    ("statement", "rows"),
    [
        ("select 1 as a, 2 as a", [[1, 2]]),
        ("values (1, 'x'), (2, null)", [[1, "x"], [2, None]]),
        ("table catlog.provider", []),
        ("(select 1) union all (select 2) order by 1", [[1], [2]]),
        ("with x as (select 3 as n) select n from x", [[3]]),
        ("select 'a;b' as \"a;b\", $x$;$x$ -- ;", [["a;b", ";"]]),
        ("select pg_sleep(0)", [[""]]),
        ("select row(1, 'x')", [["(1,x)"]]),
        ("select 'abc'::char(3), 'abc'::bpchar, b'101'", [["abc", "abc", "101"]]),
        ("select table_name from information_schema.tables where table_name = 'node'", [["node"]]),
        ("select most_common_vals from pg_stats limit 0", []),
        ("select '%', ':x', E'\\\\'", [["%", ":x", "\\"]]),
        ("show search_path", [["public"]]),
        ("explain (costs off) select 1", [["Result"]]),
    ],
)
def test_query_returns_what_postgresql_returns(
    postgres: Postgres, statement: str, rows: list[list[object]]
) -> None:
    with postgres.clone() as url:
        execute(url, "ALTER ROLE catlog SET search_path = public")
        assert run(url, statement) == rows


def test_setting_holds_for_the_statements_that_follow(url: str) -> None:
    asked = "select current_setting('catlog.as_of', true)"
    assert run(url, "set catlog.as_of = '2026-01-01'", asked) == [["2026-01-01"]]
    assert run(url, asked) in ([[None]], [[""]])


def test_refusal_shows_the_line_of_the_query(url: str) -> None:
    with pytest.raises(NotPossible) as refused:
        run(url, "select 1,\n  nothing from pg_class")
    assert str(refused.value) == (
        'PostgreSQL refused the query: column "nothing" does not exist\n'
        "LINE 2:   nothing from pg_class"
    )


def test_command_prints_tables_and_csv(database_url: str, tmp_path: Path) -> None:
    project = Project(tmp_path, database_url)
    printed = project.scrapy("sql", "set catlog.as_of = '2026-01-01'; select 1 as n, null as m;")
    assert [line.split() for line in printed.splitlines()] == [["n", "m"], ["1"], ["(1", "row)"]]
    csv = project.scrapy("sql", "--csv", "set catlog.as_of = 'now'; select 1 as n, 'a,b' as n")
    assert csv == 'n,n\n1,"a,b"\n'
    assert project.scrapy("sql", "--csv", "show jit") == "jit\noff\n"


@pytest.mark.parametrize(
    "text",
    [
        "commit; delete from catlog.provider",
        "set transaction read write; delete from catlog.provider",
        "/* a */ copy (select 1) to program 'true'",
        "lock table catlog.provider",
        "do $$ begin null; end $$",
        "(delete from catlog.provider)",
    ],
)
def test_command_refuses_what_is_not_a_query_in_one_line(
    database_url: str, tmp_path: Path, text: str
) -> None:
    refused = Project(tmp_path, database_url).scrapy("sql", text, code=2)
    assert "read-only" in refused or "must be set before any query" in refused
    assert len(refused.splitlines()) == 1
