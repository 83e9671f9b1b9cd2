"""Output of commands for people: at a terminal of 80 columns, and in the foreground of a load."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from catlog_scrapy.store.queue import attempts, catalogs, nodes, starting
from catlog_scrapy.store.queue.claims import claim
from tests.support.fleet import Fleet
from tests.support.project import Project
from tests.support.source import Answer, Source
from tests.support.terminal import COLUMNS, at_terminal
from tests.support.waiting import free_port, rows, until

SPIDER = """
from catlog_scrapy.records import Record
from scrapy import Request, Spider


class Thing(Record, key="id", view="things"):
    id: str
    title: str = ""
    note: str | None = None
    data: dict[str, int] = {}


class Things(Spider):
    name = "things"
    record = Thing
    base_url: str = ""
    part: str = ""
    custom_settings = {"RETRY_TIMES": 0}

    async def start(self):
        self.logger.warning("the tone is %s", self.settings.get("TONE"))
        yield Request(self.base_url + "/" + self.part)

    def parse(self, response):
        for line in response.text.split():
            yield {"id": self.part + line, "title": "x" * 60, "data": {"a": 1}}
"""
DECLARATION = """
[provider]
name = "a-provider-with-a-rather-long-name"
base_url = "{url}"
max_running = 2

[[scheme]]
name = "things"
max_errors = 3
[[scheme.operation]]
name = "things"
for_each = ["good", "bad"]
arguments = {{ part = "{{part}}" }}
backoff = {{ base = "1s", cap = "1s" }}
{more}
"""
SCHEME = "a-provider-with-a-rather-long-name/things"


@pytest.fixture
def source() -> Iterator[Source]:
    with Source() as source:
        source.answers = {"/good": Answer(b"1 2 3"), "/bad": Answer(status=500)}
        yield source


@pytest.fixture
def project(database_url: str, tmp_path: Path, source: Source) -> Project:
    project = Project(tmp_path, database_url, TZ="UTC")
    project.write("shop/spiders/things.py", SPIDER)
    declare(project, source)
    return project


def declare(project: Project, source: Source, more: str = "") -> None:
    declaration = DECLARATION.format(url=source.url, more=more)
    project.write("shop/providers/a.toml", declaration)
    project.scrapy("apply")


def terminal(project: Project, *arguments: str, code: int = 0) -> str:
    """Run a command at a terminal, whose lines must fit and must not be empty."""
    found, text = at_terminal(project.folder, project.environment, *arguments)
    assert found == code, text
    for line in text.splitlines():
        assert len(line) <= COLUMNS, f"{len(line)} columns: {line}\n{text}"
    return text


def words(text: str) -> str:
    """Return *text* without the line breaks of a terminal."""
    return " ".join(text.split())


def catalog_ids(engine: Engine) -> list[str]:
    sql = "SELECT CAST(id AS text) FROM catlog.catalog ORDER BY created_at"
    return [id_ for (id_,) in rows(engine, sql)]


def test_load_says_when_the_next_attempt_begins_and_keeps_the_first_error(
    engine: Engine, project: Project, source: Source
) -> None:
    said = project.scrapy("load", SCHEME, code=1)
    lines = said.splitlines()
    waits = [line for line in lines if "next attempt in" in line]
    assert [re.sub(r"in \d+ s", "in N s", line) for line in waits] == [
        f"{SCHEME}/things bad: next attempt in N s (2 of 3)",
        f"{SCHEME}/things bad: next attempt in N s (3 of 3)",
    ]
    assert "3 attempts failed; last error: " in lines[-1]


def test_load_once_ends_at_the_first_failed_attempt(engine: Engine, project: Project) -> None:
    said = project.scrapy("load", SCHEME, "--once", code=1)
    assert "next attempt" not in said
    assert rows(engine, "SELECT state, errors FROM catlog.catalog") == [("failed", 1)]
    failed = "SELECT count(*) FROM catlog.instance_attempt WHERE outcome = 'incomplete'"
    assert rows(engine, failed) == [(1,)]


def test_load_once_of_sub_catalogs_fails_their_parent(
    engine: Engine, project: Project, source: Source
) -> None:
    declare(project, source, more='[[scheme]]\nname = "all"\nincludes = ["things"]')
    said = project.scrapy("load", f"{SCHEME.partition('/')[0]}/all", "--once", code=1)
    assert "next attempt" not in said
    assert {state for (state,) in rows(engine, "SELECT state FROM catlog.catalog")} == {"failed"}
    parent = rows(engine, "SELECT CAST(id AS text) FROM catlog.catalog WHERE parent_id IS NULL")
    assert "==> things bad attempt 1: " in project.scrapy("logs", parent[0][0])


def test_load_of_an_operation_with_tags_waits_and_says_how_to_go_on(
    engine: Engine, project: Project, source: Source
) -> None:
    declare(project, source, more='tags = ["browser"]')
    source.answers["/bad"] = Answer(b"4")
    load = project.start("load", SCHEME)
    until(lambda: "waits for a worker with the tags browser" in load.written()[0])
    # Another process with the tags takes the work.
    project.scrapy("work", "--drain", "-s", "CATLOG_TAGS=browser, more")
    out, _ = load.communicate()
    assert load.returncode == 0, out
    assert "loaded" in out
    project.scrapy("load", SCHEME, "-s", "CATLOG_TAGS=browser")
    said = project.scrapy("work", "--drain", "-s", "CATLOG_TAGS=a b", code=2)
    assert "CATLOG_TAGS has 'a b', which is not a valid tag" in said


def test_load_says_that_its_provider_runs_as_many_as_it_may(
    engine: Engine, project: Project, source: Source
) -> None:
    source.answers["/bad"] = Answer(b"4 5")
    catalog = catalogs.create(engine, *SCHEME.split("/"))
    starting.start_waiting(engine)
    held = claim(engine, "elsewhere", limit=2, catalogs=[catalog])
    load = project.start("load", SCHEME)
    provider = SCHEME.partition("/")[0]
    until(lambda: f"waits: 2 of 2 running for {provider}" in load.written()[0])
    for claimed in held:
        attempts.release(engine, claimed.attempt)
    out, _ = load.communicate()
    assert load.returncode == 0, out
    assert out.count("waits: ") == 1


def test_commands_fit_a_terminal_of_80_columns(
    engine: Engine, project: Project, source: Source
) -> None:
    project.scrapy("load", SCHEME, code=1)
    source.answers["/bad"] = Answer(b"4 5")
    assert "loaded" in terminal(project, "load", SCHEME)
    listed = terminal(project, "status")
    assert listed.split()[:8] == [
        "catalog", "scheme", "state", "done", "errors", "changes", "at", "took"
    ]  # fmt: skip
    assert re.search(r"loaded +2/2 +\+5 +\d\d-\d\d \d\d:\d\d +\d+s", listed)
    assert re.search(r"failed +1/2 +3 +\d\d-\d\d \d\d:\d\d +\d+s", listed)
    failed, loaded = catalog_ids(engine)
    assert loaded[:8] in listed.splitlines()[1]
    shown = terminal(project, "status", failed[:8])
    assert "failed, 1 of 2 done, " in shown
    assert "HTTP 500" in words(shown)
    assert "5 created" in words(terminal(project, "status", loaded[:8]))
    terminal(project, "sql", "select * from things")
    terminal(project, "nodes")
    terminal(project, "retry", failed[:8])
    terminal(project, "status")
    terminal(project, "load", "-h")
    terminal(project, "logs", "-h")
    terminal(project, "sql", "-h")


def test_status_and_nodes_say_what_waits_at_80_columns(engine: Engine, project: Project) -> None:
    catalog = catalogs.create(engine, *SCHEME.split("/"))
    starting.start_waiting(engine)
    nodes.register(
        engine, "a-host.example.com:6800", url="http://a-host.example.com:6800", pid=1,
        version="0.1.0", slots=2, poll=60.0, tags=["browser"],
    )  # fmt: skip
    nodes.record_poll(
        engine, "a-host.example.com:6800", running=2, projects={"default": {"version": "1"}}
    )
    reason = "2 of 2 slots taken on the node"
    assert f"{str(catalog)[:8]} waits: {reason}" in words(terminal(project, "status"))
    shown = words(terminal(project, "status", str(catalog)[:8]))
    assert f"things good: new, waits: {reason}" in shown
    listed = words(terminal(project, "nodes"))
    assert f"2 instances in the queue; waits: {reason}" in listed
    assert "browser" in listed
    assert project.scrapy("nodes").count("a-host.example.com:6800") == 2
    assert json.loads(project.scrapy("status", "--json"))[0]["waits"] == reason


def test_status_is_restricted_to_a_provider(engine: Engine, project: Project) -> None:
    project.scrapy("load", SCHEME, "--once", code=1)
    provider, _, scheme = SCHEME.partition("/")
    [id_] = catalog_ids(engine)
    for name in (provider, SCHEME):
        assert id_[:8] in project.scrapy("status", "--provider", name)
    assert "no provider 'nobody'" in project.scrapy("status", "--provider", "nobody", code=2)
    said = project.scrapy("status", "--provider", f"{provider}/x", code=2)
    assert f"{provider} has no scheme 'x'; it has {scheme}." in said
    assert "--provider restricts" in project.scrapy("status", id_, "--provider", "x", code=2)


def test_retry_now_does_not_wait_for_the_backoff(
    engine: Engine, project: Project, source: Source
) -> None:
    declare(project, source, more="")
    path = project.folder / "shop/providers/a.toml"
    path.write_text(path.read_text().replace('"1s"', '"2h"'))
    project.scrapy("apply")
    load = project.start("load", SCHEME)
    until(lambda: "next attempt in" in load.written()[0])
    source.answers["/bad"] = Answer(b"4 5")
    [id_] = catalog_ids(engine)
    assert "is loading; only a failed or cancelled" in project.scrapy("retry", id_, code=2)
    assert f"catalog {id_} is queued" in project.scrapy("retry", "--now", id_)
    out, _ = load.communicate()
    assert load.returncode == 0, out


def test_sql_reads_the_past_and_prints_one_column_a_line(
    engine: Engine, project: Project, source: Source
) -> None:
    source.answers["/bad"] = Answer(b"4 5")
    project.scrapy("load", SCHEME)
    [(at,)] = rows(engine, "SELECT CAST(clock_timestamp() AS text)")
    source.answers["/bad"] = Answer(b"4 5 6 7")
    project.scrapy("load", SCHEME)
    count = "select count(*) as n from things"
    assert project.scrapy("sql", "--csv", count) == "n\n7\n"
    assert project.scrapy("sql", "--csv", "--as-of", at, count) == "n\n5\n"
    assert project.scrapy("sql", "--csv", "--as-of", at, "table things").count("\n") == 6
    assert project.scrapy("sql", "--csv", "--as-of", "2020-01-01", count) == "n\n0\n"
    past = f"set catlog.as_of = '{at}'; select count(*) as n from as_of.things"
    assert project.scrapy("sql", "--csv", past) == "n\n5\n"
    said = project.scrapy("sql", "--as-of", "noon", count, code=2)
    assert "'noon' is not a valid time; use a value such as" in said
    said = project.scrapy("sql", "--csv", "-x", count, code=2)
    assert "not allowed with" in said
    assert project.scrapy("sql", "-x", "select 1 as a, 'x\ny' as name, null as no") == (
        "-[ row 1 ]-\na    | 1\nname | x\n     | y\nno   |\n(1 row)\n"
    )


@pytest.mark.parametrize(
    ("statements", "printed"),
    [
        ("show timezone", "TimeZone\nUTC\n"),
        ("(select 1 as a) union (select 2) order by 1", "a\n1\n2\n"),
        ("-- first\nwith x as (select 3 as a) table x; values (4)", "a\n3\ncolumn1\n4\n"),
        ("set work_mem = '8MB'; show work_mem;", "work_mem\n8MB\n"),
        ("reset all; select 5 as a", "a\n5\n"),
        ("select 'a,\"b' as a, null as b", 'a,b\n"a,""b",\n'),
    ],
)
def test_csv_takes_every_statement_that_reads(
    project: Project, statements: str, printed: str
) -> None:
    assert project.scrapy("sql", "--csv", statements) == printed


def test_result_too_wide_for_the_terminal_has_one_column_a_line(project: Project) -> None:
    wide = "select " + ", ".join(f"'{10 * 'x'}' as column_{n}" for n in range(12))
    assert "-[ row 1 ]-" in terminal(project, "sql", wide)
    assert "(1 row)" in terminal(project, "sql", "select 1")
    assert "-x" not in project.scrapy("sql", wide)
    assert "column_11 | xxxxxxxxxx" in terminal(project, "sql", "-x", wide)


def test_logs_of_a_catalog_and_of_an_attempt_are_printed(engine: Engine, project: Project) -> None:
    project.scrapy("load", SCHEME, "-s", "TONE=blue", code=1)
    [id_] = catalog_ids(engine)
    logs = project.scrapy("logs", id_[:8])
    assert logs.count("==> things bad attempt ") == 3
    assert logs.count("==> things good attempt 1: done on ") == 1
    assert logs.count("the tone is blue") == 4
    failed = project.scrapy("logs", id_[:8], "--failed", "--lines", "1")
    assert failed.count("==> things bad attempt ") == 3
    assert "good" not in failed
    assert len(failed.splitlines()) == 6
    sql = """SELECT instance_id || '.' || attempt, log FROM catlog.instance_attempt
             WHERE outcome = 'done'"""
    [(attempt, log)] = rows(engine, sql)
    assert project.scrapy("logs", attempt).splitlines()[1:] == Path(log).read_text().splitlines()
    assert project.scrapy("logs", Path(log).name) == project.scrapy("logs", attempt)
    Path(log).unlink()
    said = project.scrapy("logs", attempt, code=1)
    assert f"{log} is not on this machine: read it on " in said
    for wrong, message in (
        ("ffffffff", "no catalog with the id"),
        ("a.b", "'a.b' is not a valid attempt; use INSTANCE.NUMBER"),
        (f"{attempt}9", "no attempt "),
    ):
        assert message in project.scrapy("logs", wrong, code=2)
    assert "write one catalog id" in project.scrapy("logs", code=2)
    assert "--lines is 0" in project.scrapy("logs", id_, "--lines", "0", code=2)


def test_logs_of_another_machine_come_from_its_node(
    engine: Engine, database_url: str, tmp_path: Path
) -> None:
    with Source() as source, Fleet(tmp_path, engine, database_url, source, parts=["a"]) as fleet:
        fleet.apply()
        secret = {"SCRAPYD_USERNAME": "me", "SCRAPYD_PASSWORD": "pass"}
        node = fleet.node(**secret)
        catalog = fleet.load()
        until(lambda: fleet.states() == {"loaded"}, what=node.said)
        # As on another machine: the file of the path does not exist here.
        node.home.rename(moved := tmp_path / "elsewhere")
        project = fleet.project
        for answer in ("401", "404"):
            said = project.scrapy("logs", catalog, code=1)
            reason = "it demands a password" if answer == "401" else "it does not have the log"
            assert reason in said
            project.environment |= secret
        moved.rename(node.home)
        rows(engine, "UPDATE catlog.instance_attempt SET log = '/x/' || log RETURNING 1")
        logs = project.scrapy("logs", catalog)
        assert f"==> things a attempt 1: done on {node.name} <==" in logs
        assert "page 5: ..." in logs
        node.kill()
        said = project.scrapy("logs", catalog, code=1)
        assert f"start the node {node.name}, or read /x/" in said


def test_settings_of_the_command_line_reach_isolated_attempts(
    engine: Engine, project: Project, source: Source
) -> None:
    declare(project, source, more="isolate = true")
    source.answers["/bad"] = Answer(b"4 5")
    project.scrapy("load", SCHEME, "-s", "TONE=green")
    [id_] = catalog_ids(engine)
    assert project.scrapy("logs", id_).count("the tone is green") == 2


def test_settings_of_up_reach_node_and_server(tmp_path: Path, source: Source) -> None:
    project = Project(tmp_path, None)
    project.write(
        "scrapy.cfg",
        "[settings]\ndefault = shop.settings\n\n[scrapyd]\n"
        "application = catlog_scrapy.fleet.app.application\n",
    )
    project.write("shop/spiders/things.py", SPIDER)
    declare(project, source)
    source.answers["/bad"] = Answer(b"4 5")
    try:
        out = project.scrapy(
            "up", "--wait", "--port", str(free_port()), "--api-port", "0", "-s", "TONE=red",
            "-s", "CATLOG_NODE=ruby", "-s", "CATLOG_API_HOST=127.0.0.2",
        )  # fmt: skip
        assert "HTTP API http://127.0.0.2:" in out
        order(project)
        logs = project.scrapy("logs", wait_until_loaded(project))
        assert logs.count("the tone is red") == 2
        assert "done on ruby:" in logs
    finally:
        project.scrapy("up", "--stop", code=None)


def order(project: Project) -> None:
    """Queue a catalog that only the node can load."""
    code = f"""
from scrapy.utils.project import get_project_settings
from catlog_scrapy.project import prepare, project_database
from catlog_scrapy.store.queue import catalogs
settings = get_project_settings()
prepare(settings)
with project_database(settings) as engine:
    catalogs.create(engine, *{SCHEME.split("/")!r})
"""
    subprocess.run(
        [sys.executable, "-c", code], cwd=project.folder, env=project.environment, check=True
    )


def wait_until_loaded(project: Project) -> str:
    found: list[dict[str, Any]] = []

    def is_loaded() -> bool:
        found[:] = json.loads(project.scrapy("status", "--json"))
        time.sleep(0.2)
        return bool(found[0]["state"] == "loaded")

    until(is_loaded, what=lambda: found)
    return str(found[0]["id"])


def test_brackets_in_output_are_text(engine: Engine, project: Project, source: Source) -> None:
    """Rich takes [/] and [red] for its markup."""
    path = project.folder / "shop/providers/a.toml"
    path.write_text(path.read_text().replace('"good", "bad"', '"[/a]", "[red]b"'))
    project.scrapy("apply")
    for said in (
        project.scrapy("load", SCHEME, "--dry-run"),
        project.scrapy("load", SCHEME, "--once", code=1),
        project.scrapy("status", catalog_ids(engine)[0]),
        project.scrapy("sql", "select '[/a]' as \"[x]\", '[red]b'"),
    ):
        assert "[/a]" in said
        assert "[red]b" in said
    nodes.register(engine, "[/a]:1", url="http://[::1]:1", pid=1, version="0", slots=1, poll=1.0)
    projects = {"default": {"error": "[red]b [/]"}}
    nodes.record_poll(engine, "[/a]:1", running=0, projects=projects, error="[/] failed")
    said = project.scrapy("nodes")
    for word in ("[/a]:1", "http://[::1]:1", "[red]b [/]", "[/] failed"):
        assert word in said


def test_keys_and_users_fit_a_terminal_of_80_columns(project: Project) -> None:
    project.scrapy("key", "add", "a-robot-with-a-long-name", "--role", "service", "--expires", "9d")
    project.scrapy("key", "add", "narrow", "--role", "service", "--scope", "catalogs:create")
    listed = terminal(project, "key", "list")
    assert "catalogs:create" in listed
    assert listed.count("valid") == 2
    terminal(project, "user", "list")
    terminal(project, "load", SCHEME, "--dry-run")
