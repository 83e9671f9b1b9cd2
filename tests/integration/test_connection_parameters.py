"""Connections whatever the environment, the role and the database set."""

import datetime as dt
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, exc, make_url, text

from catlog_scrapy.db.driver import connect
from catlog_scrapy.db.embedded import EmbeddedServer
from catlog_scrapy.db.engine import make_engine
from catlog_scrapy.db.opening import open_database
from catlog_scrapy.db.statement_pool import StatementPool
from catlog_scrapy.exceptions import ConfigurationError
from tests.support.embedded import PROJECT
from tests.support.pgbouncer import PgBouncer
from tests.support.postgres import Postgres
from tests.support.project import inherited_environment
from tests.support.waiting import rows

# Values that would make libpq fail, wait, connect elsewhere, or change what statements mean.
HOSTILE = {
    "PGHOST": "192.0.2.1",
    "PGHOSTADDR": "192.0.2.1",
    "PGPORT": "1",
    "PGDATABASE": "nope",
    "PGUSER": "nope",
    "PGPASSWORD": "nope",
    "PGPASSFILE": "/dev/null/nope",
    "PGSERVICE": "nope",
    "PGSERVICEFILE": "/nope",
    "PGOPTIONS": "-c nope=1",
    "PGAPPNAME": "nope",
    "PGSSLMODE": "verify-full",
    "PGSSLNEGOTIATION": "direct",
    "PGSSLCERTMODE": "require",
    "PGSSLCERT": "/nope",
    "PGSSLKEY": "/nope",
    "PGSSLROOTCERT": "system",
    "PGSSLCRL": "/nope",
    "PGSSLMINPROTOCOLVERSION": "nope",
    "PGSSLMAXPROTOCOLVERSION": "nope",
    "PGREQUIRESSL": "1",
    "PGGSSENCMODE": "require",
    "PGREQUIREPEER": "nope",
    "PGREQUIREAUTH": "scram-sha-256",
    "PGCHANNELBINDING": "require",
    "PGCONNECT_TIMEOUT": "0",
    "PGCLIENTENCODING": "LATIN1",
    "PGTARGETSESSIONATTRS": "standby",
    "PGLOADBALANCEHOSTS": "nope",
    "PGDATESTYLE": "nope",
    "PGTZ": "nope",
    "PGGEQO": "nope",
    "PGSYSCONFDIR": "/nope",
    "PGMINPROTOCOLVERSION": "nope",
    "PGMAXPROTOCOLVERSION": "nope",
}
CHECK = """
import sys
from pathlib import Path
from catlog_scrapy.db.driver import connect
from catlog_scrapy.db.embedded import EmbeddedServer
from catlog_scrapy.db.opening import open_database
with EmbeddedServer(Path(sys.argv[1])) as url, open_database(url) as engine:
    with engine.connect() as connection:
        print(connection.exec_driver_sql("SELECT 'žluťoučký', current_user").one())
"""
SETTINGS = {
    "client_encoding": "LATIN1",
    "datestyle": "German",
    "intervalstyle": "iso_8601",
    "timezone": "Asia/Kolkata",
    "search_path": "pg_catalog",
    "extra_float_digits": "-10",
    "bytea_output": "escape",
    "standard_conforming_strings": "off",
    "transform_null_equals": "on",
    "default_transaction_isolation": "serializable",
    "lock_timeout": "1",
}
VALUES = """SELECT 'žluťoučký' AS text, 0.1::float8 + 0.2::float8 AS number,
    interval '1 day 02:03:04' AS interval, timestamptz '2026-01-02 03:04:05+00' AS at,
    date '2026-02-01' AS day, '\\x5c00'::bytea AS bytes, 'a\\b' AS backslash,
    current_setting('transaction_isolation') AS isolation"""
RIGHT = {
    "text": "žluťoučký",
    "number": 0.30000000000000004,
    "interval": dt.timedelta(days=1, hours=2, minutes=3, seconds=4),
    "at": dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC),
    "day": dt.date(2026, 2, 1),
    "backslash": "a\\b",
    "isolation": "read committed",
}


def check(home: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", CHECK, home],
        cwd=PROJECT,
        env={**inherited_environment(), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_no_variable_of_libpq_disturbs_the_embedded_server(postgres: Postgres) -> None:
    assert "('žluťoučký', 'catlog')" in check(postgres.home, **HOSTILE)


@pytest.mark.parametrize("name", HOSTILE)
def test_variable_of_libpq_does_not_disturb_an_engine(
    database_url: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, HOSTILE[name])
    engine = make_engine(database_url, connect_timeout=5)
    assert rows(engine, "SELECT 'ž', current_user") == [("ž", "catlog")]
    engine.dispose()


@pytest.fixture(params=["role", "database", "PGOPTIONS"])
def unusual(
    request: pytest.FixtureRequest, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """Return the URL of a database whose sessions begin with unusual settings."""
    name = engine.url.database
    role = f"unusual_{name}"
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"CREATE ROLE {role} LOGIN SUPERUSER"))
        if request.param == "PGOPTIONS":
            given = {n: v for n, v in SETTINGS.items() if n != "client_encoding"}
            monkeypatch.setenv("PGOPTIONS", " ".join(f"-c {n}={v}" for n, v in given.items()))
        else:
            target = f"ROLE {role}" if request.param == "role" else f"DATABASE {name}"
            for setting, value in SETTINGS.items():
                connection.execute(text(f"ALTER {target} SET {setting} = '{value}'"))
        try:
            yield engine.url.set(username=role).render_as_string(hide_password=False)
        finally:
            connection.execute(text(f"DROP ROLE {role}"))


def test_values_are_right_whatever_the_sessions_begin_with(unusual: str) -> None:
    engine = make_engine(unusual)
    with engine.connect() as connection:
        found = dict(connection.execute(text(VALUES)).mappings().one())
    engine.dispose()
    assert bytes(found.pop("bytes")) == b"\x5c\x00"
    assert found == RIGHT


def test_values_are_right_for_commands_that_read(unusual: str) -> None:
    connection = connect(unusual)
    assert connection is not None
    with connection:
        (found,) = connection.rows(VALUES, {})
    assert bytes(found.pop("bytes")) == b"\x5c\x00"
    assert found == RIGHT


@pytest.mark.slow  # it needs PgBouncer
@pytest.mark.parametrize("variable", ["PGCLIENTENCODING", "role"])
def test_encoding_is_utf8_behind_pgbouncer(
    engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    if variable == "role":
        name = f'DATABASE "{engine.url.database}"'
        rows(engine, f"ALTER {name} SET client_encoding = 'LATIN1'; SELECT 1")
    else:
        monkeypatch.setenv(variable, "LATIN1")
    with PgBouncer(database_url) as pooler:
        pooled = make_engine(pooler.url)
        assert rows(pooled, "SELECT 'žluťoučký', length('ž')") == [("žluťoučký", 1)]
        pooled.dispose()


@pytest.fixture(params=["LATIN1", "SQL_ASCII", "EUC_JP"])
def foreign(request: pytest.FixtureRequest, engine: Engine) -> Iterator[tuple[str, str]]:
    """Return the URL and the encoding of a database that is not UTF8."""
    name = f"{engine.url.database}_foreign"
    made = f"""CREATE DATABASE {name} ENCODING '{request.param}' LOCALE 'C' LOCALE_PROVIDER libc
        TEMPLATE template0"""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(made))
        try:
            yield engine.url.set(database=name).render_as_string(), request.param
        finally:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


def test_database_of_another_encoding_is_refused_with_the_remedy(foreign: tuple[str, str]) -> None:
    url, encoding = foreign
    remedy = f"encoding {encoding}, but catlog needs UTF8; create another: CREATE DATABASE"
    with pytest.raises(ConfigurationError, match=remedy), open_database(url):
        pass
    assert connect(url) is None
    pool = StatementPool(make_url(url), statement_timeout=5.0, connect_timeout=3.0)
    with pytest.raises(ConfigurationError, match=remedy):
        pool._connect()


@pytest.mark.slow  # it needs PgBouncer
def test_database_of_another_encoding_is_refused_behind_pgbouncer(
    foreign: tuple[str, str],
) -> None:
    url, encoding = foreign
    remedy = f"encoding {encoding}, but catlog needs UTF8; create another: CREATE DATABASE"
    refused = pytest.raises(ConfigurationError, match=remedy)
    with PgBouncer(url) as pooler, refused, open_database(pooler.url):
        pass


def test_parameters_in_the_url_count(database_url: str) -> None:
    url = f"{database_url}&target_session_attrs=standby"
    engine = make_engine(url)
    with pytest.raises(exc.OperationalError, match="not in hot standby mode"):
        rows(engine, "SELECT 1")


def test_embedded_server_is_found_with_hostile_variables(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in HOSTILE.items():
        monkeypatch.setenv(name, value)
    assert EmbeddedServer(postgres.home)._answers()
    assert "PGSERVICE" not in os.environ
