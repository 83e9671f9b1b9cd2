"""All commands of a project behind PgBouncer in transaction mode."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from catlog_scrapy.db.engine import make_engine
from catlog_scrapy.store.queue import catalogs
from tests.support.maker import answers, write_maker
from tests.support.pgbouncer import PgBouncer
from tests.support.postgres import Postgres
from tests.support.project import Project
from tests.support.waiting import free_port, rows, until

# It needs PgBouncer.
pytestmark = pytest.mark.slow


@pytest.fixture
def empty(postgres: Postgres) -> Iterator[tuple[Project, Engine, Path]]:
    """Return a project behind PgBouncer, an engine on its empty database, and its folder."""
    with postgres.clone("template0") as url, PgBouncer(url, pool_size=8) as pooler:
        engine = make_engine(url)
        folder = postgres.home / f"project-{pooler.port}"
        project = Project(folder, pooler.url, CATLOG_HOME=str(folder / "home"), CATLOG_GRACE="1")
        write_maker(project)
        yield project, engine, folder
        engine.dispose()


def test_project_loads_with_every_command_behind_pgbouncer(
    empty: tuple[Project, Engine, Path],
) -> None:
    project, engine, _ = empty
    project.scrapy("migrate")
    project.scrapy("apply")
    assert "loaded" in project.scrapy("load", "maker/things")
    catalogs.create(engine, "maker", "things", operation=None, arguments={})
    project.scrapy("work", "--drain", "--concurrency", "2")
    project.scrapy("schedule", "--once")
    assert "2" in project.scrapy("sql", "select count(*) from things")
    assert "count" in project.scrapy("sql", "--csv", "select count(*) from things")
    project.scrapy("status")
    project.scrapy("apply", "--check")
    assert rows(engine, "SELECT DISTINCT state FROM catlog.catalog") == [("loaded",)]
    # Nothing holds a lock or a transaction open.
    held = """SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
        WHERE d.datname = current_database() AND l.locktype = 'advisory'"""
    assert rows(engine, held) == [(0,)]


def test_node_and_server_behind_pgbouncer(empty: tuple[Project, Engine, Path]) -> None:
    project, engine, folder = empty
    project.scrapy("migrate")
    project.scrapy("apply")
    node_port, api_port = free_port(), free_port()
    log = folder / "output"
    up = project.start("up", "--port", str(node_port), "--api-port", str(api_port))
    until(lambda: answers(f"http://127.0.0.1:{api_port}/readyz"))
    made = catalogs.create(engine, "maker", "things", operation=None, arguments={})
    loaded = "SELECT 1 FROM catlog.catalog WHERE id = :made AND state = 'loaded'"
    until(lambda: rows(engine, loaded, made=made))
    with log.open("wb") as output:
        second = subprocess.run(
            [sys.executable, "-m", "scrapyd", "--pidfile="],
            cwd=project.folder,
            env={**project.environment, "SCRAPYD_HTTP_PORT": str(node_port)},
            stdout=output,
            stderr=output,
            check=False,
        )
    assert second.returncode == 1
    assert "another node has the name" in log.read_text()
    up.send_signal(signal.SIGTERM)
    out, err = up.communicate()
    assert up.returncode == 0, out + err
    assert rows(engine, "SELECT * FROM catlog.node_lease") == []
