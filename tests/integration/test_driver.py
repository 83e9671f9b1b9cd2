"""Reading with psycopg2 alone: equal rows, and SQLAlchemy for unusual URLs and revisions."""

import datetime as dt
import subprocess
import sys
from pathlib import Path
from uuid import UUID, uuid4

import psycopg2
import pytest
from scrapy.settings import Settings
from sqlalchemy import Engine, text

from catlog_scrapy.commands.status import Command as StatusCommand
from catlog_scrapy.db.driver import PLAIN_URL, connect
from catlog_scrapy.exceptions import DatabaseUnavailable
from catlog_scrapy.store.sql import rows
from tests.support.project import Project
from tests.support.waiting import until

ID = uuid4()
QUERIES = {
    "types": (
        "SELECT CAST(:id AS uuid) AS id, CAST(:at AS timestamptz) AS at, true AS yes, 1.5 AS n,"
        """ '{"a": [1, null]}'::jsonb AS data, ARRAY['x', 'ö'] AS texts, null AS nothing""",
        {"id": str(ID), "at": dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC)},
    ),
    "parameters": (
        "SELECT :one AS one, CAST(:one AS text) AS cast, '12:30'::time AS at,"
        " '50%' LIKE '5%' AS likes, ':' || :two AS two",
        {"one": 1, "two": "it's"},
    ),
    "big integers in JSON": (
        """SELECT '{"n": 123456789012345678901234567890}'::jsonb AS data,"""
        " '[18446744073709551616]'::json AS list",
        {},
    ),
    "arrays": (
        f"""SELECT ARRAY['{ID}'::uuid, null] AS ids, ARRAY['{{"a": 1}}'::jsonb] AS data""",
        {},
    ),
    "times that Python cannot hold": (
        """SELECT 'infinity'::timestamptz AS a, '-infinity'::date AS b, 'infinity'::timestamp AS c,
            '0044-03-15 BC'::date AS d, '10000-01-01T00:00Z'::timestamptz AS e,
            '0001-01-01T00:00+03'::timestamptz AS f, '24:00'::time AS g,
            '170000000 years'::interval AS h, 'NaN'::numeric AS i, '-Infinity'::float8 AS j,
            ARRAY['infinity'::date, '2026-01-28'] AS k, '0001-01-01 BC'::timestamp AS l,
            tstzrange('-infinity', '10000-01-01Z') AS m, '24:00+00'::timetz AS n,
            ARRAY[ARRAY['infinity'::timestamptz]] AS o""",
        {},
    ),
    "no rows": ("SELECT 1 AS one WHERE :flag", {"flag": False}),
}


def equal(first: object, second: object) -> bool:
    """Return whether both are equal, as NaN is not equal to itself."""
    return repr(first) == repr(second)


@pytest.mark.parametrize("name", QUERIES)
def test_driver_and_sqlalchemy_read_the_same_rows(engine: Engine, name: str) -> None:
    sql, values = QUERIES[name]
    with engine.connect() as connection:
        expected = rows(connection, sql, **values)
    database = connect(engine.url.render_as_string(hide_password=False))
    assert database is not None
    with database, database.connect() as connection:
        found = rows(connection, sql, **values)
    assert equal(found, expected)
    assert [type(value) for row in found for value in row.values()] == [
        type(value) for row in expected for value in row.values()
    ]


def test_driver_reads_hstore_as_a_dict(engine: Engine) -> None:
    with engine.begin() as connection:
        # The embedded server has no extensions; this type is read and printed as text is.
        connection.execute(
            text(
                """CREATE TYPE hstore;
                   CREATE FUNCTION hstore_in(cstring) RETURNS hstore
                       IMMUTABLE STRICT LANGUAGE internal AS 'textin';
                   CREATE FUNCTION hstore_out(hstore) RETURNS cstring
                       IMMUTABLE STRICT LANGUAGE internal AS 'textout';
                   CREATE TYPE hstore (INPUT = hstore_in, OUTPUT = hstore_out, LIKE = text)"""
            )
        )
    database = connect(engine.url.render_as_string(hide_password=False))
    assert database is not None
    with database:
        assert database.scalar('SELECT \'"a"=>"1", "b"=>NULL\'::hstore') == {"a": "1", "b": None}


def test_driver_connection_reads_only(engine: Engine) -> None:
    database = connect(engine.url.render_as_string(hide_password=False))
    assert database is not None
    with database, pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
        database.rows("DELETE FROM catlog.provider RETURNING id", {})


def test_lost_driver_connection_is_reported_as_unavailable(engine: Engine) -> None:
    database = connect(engine.url.render_as_string(hide_password=False))
    assert database is not None
    with database:
        pid = database.scalar("SELECT pg_backend_pid()")
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        with pytest.raises(DatabaseUnavailable, match="the database failed: "):
            database.rows("SELECT 1 AS one", {})


def test_lost_connection_of_an_unusual_url_is_reported_as_unavailable(database_url: str) -> None:
    command = StatusCommand()
    url = f"{database_url}&application_name=a+b"
    command.settings = Settings({"CATLOG_DATABASE_URL": url})
    assert connect(url) is None
    with (
        pytest.raises(
            DatabaseUnavailable, match=r"^the database failed: .*; nothing was left half"
        ),
        command.readable_database() as database,
        database.connect() as connection,
    ):
        rows(connection, "SELECT pg_terminate_backend(pg_backend_pid()) AS ended")


def test_query_that_loses_its_connection_ends_with_one_line(
    engine: Engine, database_url: str, tmp_path: Path
) -> None:
    project = Project(tmp_path, database_url)
    command = project.start("sql", "select pg_sleep(60)")
    ended = """
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND query LIKE '%run_query(''SELECT%pg_sleep(60)%'
          AND pid <> pg_backend_pid()"""

    def is_ended() -> bool:
        with engine.connect() as connection:
            return bool(rows(connection, ended))

    until(is_ended)
    printed = "".join(command.communicate())
    assert command.returncode == 2
    assert printed.startswith("scrapy sql: the database failed: ")
    assert len(printed.splitlines()) == 1


def test_sql_prints_times_that_python_cannot_hold(database_url: str, tmp_path: Path) -> None:
    project = Project(tmp_path, database_url)
    for value, shown in (
        ("'infinity'::timestamptz", "infinity"),
        ("'-infinity'::date", "-infinity"),
        ("'0044-03-15 BC'::date", "0044-03-15 BC"),
        ("'0001-01-01T00:00+03'::timestamptz", "0001-12-31 21:00:00+00 BC"),
        ("'10000-01-01T00:00Z'::timestamptz", "10000-01-01 00:00:00+00"),
        ("'24:00'::time", "24:00:00"),
        ("'170000000 years'::interval", "170000000 years"),
        ("ARRAY['infinity'::date]", '["infinity"]'),
        ("tstzrange('-infinity', null)", "[-infinity, None)"),
    ):
        assert shown in project.scrapy("sql", f"select {value} as value"), value


@pytest.mark.parametrize(
    ("url", "is_plain"),
    [
        ("postgresql://user:p%40ss@host:5432/database", True),
        ("postgres://host/database?sslmode=require", True),
        ("postgresql+psycopg2://catlog@/catlog?host=/tmp/a%20b&port=5432", True),
        ("postgresql://host/database?host=a&sslmode=require&port=1", True),
        ("postgresql://host/database?host=a&port=1&host=b", False),
        ("postgresql://host/database?host=a&host=a", False),
        ("postgresql://host/database?ssl=true", False),
        ("postgresql://host/database?port=1&ssl=true", False),
        ("postgresql://host/database?application_name=", False),
        ("postgresql://host/database?options=-csearch_path%3Dx", False),
        ("postgresql://host/database?sslmode=require&client_encoding=latin1", False),
        ("postgresql://user:p@ss@host/database", False),
        ("postgresql://a:1,b:2/database", False),
        ("postgresql://host/database?host=a:1", False),
        ("postgresql://host", False),
        ("sqlite:///file", False),
        ("nonsense", False),
    ],
)
def test_driver_leaves_unusual_urls_to_sqlalchemy(url: str, is_plain: bool) -> None:
    assert (PLAIN_URL.fullmatch(url) is not None) == is_plain


def test_driver_leaves_another_revision_to_sqlalchemy(engine: Engine) -> None:
    url = engine.url.render_as_string(hide_password=False)
    with engine.begin() as connection:
        connection.execute(text("UPDATE catlog.alembic_version SET version_num = '0000'"))
    assert connect(url) is None


def test_status_and_sql_import_neither_sqlalchemy_nor_alembic(
    database_url: str, engine: Engine, tmp_path: Path
) -> None:
    project = Project(tmp_path, database_url)
    project.write(
        "probe.py",
        """
        import sys
        from scrapy.cmdline import execute
        try:
            execute(["scrapy", *sys.argv[1:]])
        finally:
            heavy = {"sqlalchemy", "alembic", "fastapi"} & set(sys.modules)
            print("imported:", *sorted(heavy))
        """,
    )
    for arguments in (["status"], ["status", "--json"], ["sql", "select 1"]):
        done = subprocess.run(
            [sys.executable, "probe.py", *arguments],
            cwd=tmp_path,
            env=project.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.rstrip().endswith("imported:"), done.stdout


def test_uuid_columns_are_read_as_uuids(engine: Engine) -> None:
    database = connect(engine.url.render_as_string(hide_password=False))
    assert database is not None
    with database:
        assert database.scalar(f"SELECT '{ID}'::uuid") == UUID(str(ID))
        assert database.scalar("SELECT null::uuid") is None
