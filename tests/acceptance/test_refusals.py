"""Refusals of the database: a command ends with one line that has the remedy."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, make_url, text

from catlog_scrapy.db.engine import make_engine
from catlog_scrapy.db.opening import open_database
from catlog_scrapy.db.refusals import CONNECTION_REMEDIES, connection_remedy, refusals_reported
from catlog_scrapy.exceptions import CatlogError, ConfigurationError, DatabaseUnavailable
from tests.support.maker import DECLARATION, SPIDER
from tests.support.pgbouncer import PgBouncer
from tests.support.postgres import Postgres
from tests.support.project import Project
from tests.support.waiting import rows, until


@pytest.fixture
def poor(engine: Engine) -> Iterator[str]:
    """Return the URL of a role that may only connect and read."""
    name = engine.url.database
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"CREATE ROLE poor_{name} LOGIN"))
        connection.execute(text(f"GRANT pg_read_all_data TO poor_{name}"))
        try:
            yield engine.url.set(username=f"poor_{name}").render_as_string()
        finally:
            connection.execute(text(f"DROP OWNED BY poor_{name}; DROP ROLE poor_{name}"))


def given_a_project(folder: Path, url: str) -> Project:
    project = Project(folder, url)
    project.write("shop/spiders/things.py", SPIDER)
    project.write("shop/providers/maker.toml", DECLARATION)
    return project


def refused(project: Project, *arguments: str) -> str:
    """Run a command that the database refuses, and return its only line."""
    said = project.scrapy(*arguments, code=2).strip()
    assert "\n" not in said
    return said


def test_role_without_rights_gets_a_line_from_each_command(
    engine: Engine, poor: str, tmp_path: Path
) -> None:
    given_a_project(tmp_path, engine.url.render_as_string()).scrapy("apply")
    project = given_a_project(tmp_path, poor)
    assert "loaded" not in project.scrapy("status")
    for arguments in (["load", "maker/things"], ["reset", "maker/things", "--yes"]):
        said = refused(project, *arguments)
        assert "the database refuses: permission denied" in said
        assert "grant its role that right, or name the owner of the database" in said


@pytest.mark.parametrize("command", ["migrate", "status"])
def test_role_without_create_right_cannot_migrate(
    postgres: Postgres, tmp_path: Path, command: str
) -> None:
    with postgres.clone("template0") as url:
        owner = make_engine(url)
        role = f"poor_{owner.url.database}"
        rows(owner, f"CREATE ROLE {role} LOGIN; SELECT 1")
        poor = owner.url.set(username=role).render_as_string()
        said = refused(given_a_project(tmp_path, poor), command)
        expected = {
            "migrate": "the database refuses: permission denied for database",
            "status": "the database has no catlog schema; run scrapy migrate",
        }
        assert expected[command] in said
        rows(owner, f"DROP ROLE {role}; SELECT 1")
        owner.dispose()


@pytest.mark.parametrize("command", [["migrate"], ["load", "maker/things"], ["apply"]])
def test_read_only_database_is_named(
    engine: Engine, postgres: Postgres, tmp_path: Path, command: list[str]
) -> None:
    url = engine.url.render_as_string()
    given_a_project(tmp_path, url).scrapy("apply")
    with postgres.clone("template0") as empty:
        if command == ["migrate"]:
            url = empty
        owner = make_engine(url)
        rows(
            owner,
            f"ALTER DATABASE {owner.url.database} SET default_transaction_read_only = on; SELECT 1",
        )
        owner.dispose()
        if command == ["apply"]:
            Project(tmp_path, url).write(
                "shop/providers/other.toml", DECLARATION.replace("maker", "m")
            )
        said = refused(given_a_project(tmp_path, url), *command)
        assert "in a read-only transaction; it is a replica, or its role has" in said


def test_schema_of_another_program_is_named(postgres: Postgres, tmp_path: Path) -> None:
    with postgres.clone("template0") as url:
        engine = make_engine(url)
        rows(engine, "CREATE SCHEMA catlog; CREATE TABLE catlog.provider (id int); SELECT 1")
        engine.dispose()
        said = refused(given_a_project(tmp_path, url), "migrate")
    assert 'relation "provider" already exists; another program has this' in said


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("postgresql://a:5432,b:5432/db", "names several hosts in libpq's form; write them as"),
        ("postgresql://u:p@a:5432,b:5433/db", "?host=one:5432&host=two:5432"),
        ("postgresql://a:abc/db", "a port that is not a number; use postgresql://user"),
        ("postgresql://a:/db", "a port that is not a number"),
        ("postgresql://[::1/db", "use postgresql://user:password@host:5432/database"),
        ("postgresql://a:99999/db", "has the port 99999; use a number from 1 to 65535"),
        ("postgresql://a:0/db", "has the port 0; use a number"),
        ("nonsense", "is not a valid database URL"),
        ("mysql://a/db", "names mysql, but catlog needs PostgreSQL"),
    ],
)
def test_unusable_url_is_explained(url: str, remedy: str) -> None:
    with pytest.raises(ConfigurationError) as caught, open_database(url):
        pass
    assert remedy in str(caught.value)


def test_several_hosts_as_parameters_are_tried_in_order(database_url: str) -> None:
    given = make_url(database_url)
    hosts = [f"127.0.0.1:{1}", f"{given.query['host']}:5432"]
    with open_database(given.set(query={"host": hosts}).render_as_string()) as engine:
        assert rows(engine, "SELECT 1") == [(1,)]


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        ({"database": "missing"}, "Create it, CREATE DATABASE name ENCODING 'UTF8'"),
        ({"username": "missing"}, "Create it, CREATE ROLE name LOGIN"),
        ({"host": "nowhere.invalid", "query": {}}, "Correct the host in CATLOG_DATABASE_URL"),
        ({"host": "127.0.0.1", "port": 1, "query": {}}, "Start that server or correct"),
        ({"query": {"host": "/nowhere"}}, "unset it for the embedded one"),
        ({"query": {"host": "/nowhere", "sslmode": "nope"}}, "Correct the parameters"),
    ],
)
def test_failed_connection_is_explained(
    database_url: str, change: dict[str, object], remedy: str
) -> None:
    url = make_url(database_url).set(**change).render_as_string()  # type: ignore[arg-type]
    with pytest.raises(DatabaseUnavailable) as caught, open_database(url):
        pass
    assert remedy in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow  # it needs PgBouncer
def test_wrong_password_is_explained(database_url: str) -> None:
    with PgBouncer(database_url, auth_type="md5", password="right") as pooler:
        wrong = make_url(pooler.url).set(password="wrong").render_as_string(hide_password=False)
        with pytest.raises(DatabaseUnavailable) as caught, open_database(wrong):
            pass
        assert "Correct user and password in CATLOG_DATABASE_URL" in str(caught.value)
        assert "wrong" not in str(caught.value)
        refused = pytest.raises(DatabaseUnavailable, match="Correct user and password")
        with refused, open_database(pooler.url):
            pass


def test_exhausted_connections_are_explained(engine: Engine, poor: str) -> None:
    rows(engine, f"ALTER DATABASE {engine.url.database} CONNECTION LIMIT 0; SELECT 1")
    with pytest.raises(DatabaseUnavailable, match="or use PgBouncer"), open_database(poor):
        pass


@pytest.mark.parametrize("pattern", CONNECTION_REMEDIES)
def test_every_remedy_is_a_sentence(pattern: str) -> None:
    assert CONNECTION_REMEDIES[pattern][0].isupper()
    assert connection_remedy("etwas anderes").startswith("Start that server")


def test_a_bug_is_no_refusal(engine: Engine) -> None:
    with pytest.raises(Exception, match="does not exist") as caught, refusals_reported():
        rows(engine, "SELECT 1 FROM nowhere")
    assert not isinstance(caught.value, CatlogError)


def test_worker_prints_an_outage_of_its_claims_once(engine: Engine, tmp_path: Path) -> None:
    project = given_a_project(tmp_path, engine.url.render_as_string())
    project.scrapy("apply")
    definition = "SELECT pg_get_functiondef(CAST('catlog.claim_instances' AS regproc))"
    ((function,),) = rows(engine, definition)
    failing = function.replace(
        "\nBEGIN\n",
        "\nBEGIN\nPERFORM nextval('failed_claims');"
        "RAISE 'the claim took too long' USING ERRCODE = 'query_canceled';\n",
    )
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE SEQUENCE failed_claims")
        connection.exec_driver_sql(failing, execution_options={"no_parameters": True})
    worker = project.start("work", "-s", "CATLOG_POLL=0.05")
    claims = "SELECT last_value FROM failed_claims"
    until(lambda: rows(engine, claims)[0][0] > 5)
    worker.terminate()
    printed, _ = worker.communicate()
    assert printed.count("the claim took too long; waiting for it") == 1
