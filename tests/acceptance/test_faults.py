"""Kills, cuts and delays of real processes: each catalog loads once, or fails with a reason."""

import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from catlog_scrapy.db.embedded import EmbeddedServer
from catlog_scrapy.db.engine import make_engine
from catlog_scrapy.file_locks import locked
from tests.support.forked import Command
from tests.support.project import Project
from tests.support.source import Answer, Source
from tests.support.waiting import rows, until

SPIDER = """
import json

from catlog_scrapy.records import Record
from scrapy import Request, Spider


class Thing(Record, key=("part", "number"), view="things"):
    part: str
    number: int


class Things(Spider):
    name = "things"
    record = Thing
    base_url: str = ""
    part: str = "a"
    pages: str = "5"
    custom_settings = {"CONCURRENT_REQUESTS": 1}

    async def start(self):
        yield Request(self.base_url + "/page?1")

    def parse(self, response):
        page = int(response.url.rpartition("?")[2])
        for number in range(10):
            yield {"part": self.part, "number": page * 10 + number}
        if page < int(self.pages):
            yield Request(self.base_url + f"/page?{page + 1}")
"""

DECLARATION = """
[provider]
name = "maker"
base_url = "{url}"
max_running = {max_running}

[[scheme]]
name = "things"
max_errors = 50
[[scheme.operation]]
name = "things"
for_each = {parts}
arguments = {{ part = "{{part}}" }}
{more}
[[schedule]]
name = "always"
scheme = "things"
cron = "0 0 1 1 *"
"""


@pytest.fixture
def source() -> Iterator[Source]:
    with Source() as source:
        source.answers = {f"/page?{page}": Answer(b"[]", delay=0.02) for page in range(1, 100)}
        yield source


def given_a_project(
    folder: Path,
    url: str,
    source: Source,
    *,
    parts: list[str],
    max_running: int = 4,
    more: str = "",
    **environment: str,
) -> Project:
    project = Project(folder, url, **environment)
    project.write("shop/spiders/things.py", SPIDER)
    declaration = DECLARATION.format(
        url=source.url, parts=str(parts).replace("'", '"'), max_running=max_running, more=more
    )
    project.write("shop/providers/maker.toml", declaration)
    project.scrapy("apply")
    return project


def states(engine: Engine) -> set[str]:
    return {state for (state,) in rows(engine, "SELECT state FROM catlog.catalog")}


def kill(process: Command) -> None:
    process.kill()
    process.communicate()


def test_worker_killed_twenty_times_at_random_loads_everything(
    engine: Engine, database_url: str, tmp_path: Path, source: Source
) -> None:
    parts = [f"p{number}" for number in range(200)]
    project = given_a_project(tmp_path, database_url, source, parts=parts, CATLOG_LEASE="3")
    rows(engine, "UPDATE catlog.schedule SET next_due_at = now() RETURNING id")
    project.scrapy("schedule", "--once")
    chance = random.Random(7)
    begun = "SELECT count(*) FROM catlog.instance_attempt"
    for _ in range(20):
        before = rows(engine, begun)
        worker = project.start("work")
        until(lambda before=before: rows(engine, begun) > before or states(engine) == {"loaded"})
        time.sleep(chance.random() / 2)
        kill(worker)
    project.scrapy("work", "--drain")
    assert states(engine) == {"loaded"}
    assert rows(engine, "SELECT count(*) FROM catlog.instance_attempt WHERE outcome = 'lost'") > [
        (0,)
    ]
    undisturbed = {
        (part, 10 * page + n) for part in parts for page in range(1, 6) for n in range(10)
    }
    assert set(rows(engine, "SELECT part, number FROM things")) == undisturbed
    twice = """SELECT instance_id FROM catlog.instance_attempt WHERE outcome = 'done'
               GROUP BY instance_id HAVING count(*) > 1"""
    assert rows(engine, twice) == []


def test_two_schedulers_and_four_workers_load_fifty_due_catalogs_once(
    engine: Engine, database_url: str, tmp_path: Path, source: Source
) -> None:
    project = given_a_project(tmp_path, database_url, source, parts=["a"], max_running=3)
    rows(
        engine,
        """WITH made AS (
               INSERT INTO catlog.schedule (provider_id, scheme_name, name, cron, next_due_at)
               SELECT provider_id, scheme_name, 'extra ' || n, '0 0 1 1 *', now()
               FROM catlog.schedule, generate_series(1, 50) AS n RETURNING id)
           UPDATE catlog.schedule SET enabled = false WHERE name = 'always' RETURNING id""",
    )
    processes = [project.start("schedule") for _ in range(2)]
    until(lambda: rows(engine, "SELECT 1 FROM catlog.catalog"))
    processes += [project.start("work", "--concurrency", "3") for _ in range(4)]
    most = 0
    counted = (
        "SELECT count(*) FROM catlog.catalog_scheme_operation_instance WHERE state = 'running'"
    )

    def all_loaded() -> bool:
        nonlocal most
        most = max(most, rows(engine, counted)[0][0])
        return rows(engine, "SELECT count(*) FROM catlog.catalog WHERE state = 'loaded'") == [(50,)]

    try:
        until(all_loaded)
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            process.communicate()
    assert rows(engine, "SELECT count(*) FROM catlog.catalog") == [(50,)]
    assert rows(engine, "SELECT DISTINCT attempt, outcome FROM catlog.instance_attempt") == [
        (1, "done")
    ]
    assert 1 <= most <= 3


def test_crawl_survives_ten_seconds_without_the_database(tmp_path: Path, source: Source) -> None:
    home = tmp_path / "home"
    with EmbeddedServer(home) as url:
        folder = tmp_path / "project"
        environment = {"CATLOG_HOME": str(home), "CATLOG_LEASE": "120"}
        project = Project(folder, None, **environment)
        project = given_a_project(
            folder,
            None,
            source,
            parts=["a", "b"],
            **environment,  # type: ignore[arg-type]
        )
        # More than one batch of rows comes while the database is unavailable.
        many = SPIDER.replace("range(10)", "range(4000)").replace("page * 10", "page * 4000")
        project.write("shop/spiders/things.py", many)
        for page in range(1, 100):
            source.answers[f"/page?{page}"] = Answer(b"[]", delay=0.5)
        load = project.start("load", "maker/things", "-a", "pages=30")
        engine = make_engine(url)
        stored = "SELECT 1 FROM catlog.catalog_operation_instance_result LIMIT 1"
        until(lambda: rows(engine, stored))
        pid = int((home / "postgres" / "postmaster.pid").read_text().split()[0])
        # Without this lock the load would restart the server at once.
        with locked(EmbeddedServer(home).start_lock):
            subprocess.run(["kill", "-9", str(pid)], check=True)
            time.sleep(10)
        out, err = load.communicate()
        assert load.returncode == 0, out + err
        counted = "SELECT count(*), count(DISTINCT (part, number)) FROM things"
        assert rows(engine, counted) == [(2 * 30 * 4000,) * 2]
        outcomes = "SELECT DISTINCT attempt, outcome FROM catlog.instance_attempt"
        assert rows(engine, outcomes) == [(1, "done")]
        engine.dispose()


def test_crawl_that_blocks_its_process_times_out_and_others_continue(
    engine: Engine, database_url: str, tmp_path: Path, source: Source
) -> None:
    project = given_a_project(
        tmp_path, database_url, source, parts=["blocks", "b", "c"], more='timeout = "8s"'
    )
    marker = tmp_path / "blocked"
    blocking = SPIDER.replace(
        "        page = int",
        "        if self.part == 'blocks' and not self.blocked.exists():\n"
        "            self.blocked.touch()\n"
        "            import time\n            time.sleep(600)\n"
        "        page = int",
    ).replace(
        'pages: str = "5"',
        f'pages: str = "5"\n    blocked = __import__("pathlib").Path({str(marker)!r})',
    )
    project.write("shop/spiders/things.py", blocking)
    project.scrapy("load", "maker/things")
    assert states(engine) == {"loaded"}
    outcomes = dict(
        rows(engine, "SELECT outcome, count(*) FROM catlog.instance_attempt GROUP BY 1")
    )
    assert outcomes["done"] == 3
    # The other crawls of the blocked process stood still too, and may have timed out.
    assert outcomes["timed_out"] >= 1


def test_terminated_worker_releases_its_attempts(
    engine: Engine, database_url: str, tmp_path: Path, source: Source
) -> None:
    project = given_a_project(
        tmp_path, database_url, source, parts=["a", "b"], CATLOG_GRACE="0.2", CATLOG_LEASE="300"
    )
    for page in range(1, 100):
        source.answers[f"/page?{page}"] = Answer(b"[]", delay=1)
    rows(engine, "UPDATE catlog.schedule SET next_due_at = now() RETURNING id")
    project.scrapy("schedule", "--once")
    worker = project.start("work")
    until(lambda: source.requests)
    worker.send_signal(signal.SIGTERM)
    out, err = worker.communicate()
    assert worker.returncode == 0, out + err
    assert rows(engine, "SELECT DISTINCT outcome FROM catlog.instance_attempt") == [("released",)]
    assert rows(engine, "SELECT errors FROM catlog.catalog") == [(0,)]
    for page in range(1, 100):
        source.answers[f"/page?{page}"] = Answer(b"[]")
    project.scrapy("work", "--drain")
    assert states(engine) == {"loaded"}


def test_cancel_stops_a_running_crawl(
    engine: Engine, database_url: str, tmp_path: Path, source: Source
) -> None:
    project = given_a_project(tmp_path, database_url, source, parts=["a"])
    for page in range(1, 100):
        source.answers[f"/page?{page}"] = Answer(b"[]", delay=1)
    load = project.start("load", "maker/things", "-a", "pages=50")
    until(lambda: source.requests)
    ((catalog,),) = rows(engine, "SELECT id::text FROM catlog.catalog")
    project.scrapy("cancel", catalog)
    out, err = load.communicate()
    assert load.returncode == 1
    assert "cancelled" in out + err
    assert rows(engine, "SELECT outcome FROM catlog.instance_attempt") == [("cancelled",)]
    assert rows(engine, "SELECT * FROM things") == []


def test_isolated_operation_runs_in_its_own_process(
    engine: Engine, database_url: str, tmp_path: Path, source: Source
) -> None:
    project = given_a_project(
        tmp_path, database_url, source, parts=["good", "dies"], more="isolate = true"
    )
    dying = SPIDER.replace(
        "        page = int",
        "        if self.part == 'dies' and not self.died.exists():\n"
        "            self.died.touch()\n"
        "            import os\n            os.kill(os.getpid(), 9)\n"
        "        page = int",
    ).replace(
        'pages: str = "5"',
        f'pages: str = "5"\n    died = __import__("pathlib").Path({str(tmp_path / "died")!r})',
    )
    project.write("shop/spiders/things.py", dying)
    project.write(
        "shop/providers/maker.toml",
        DECLARATION.format(
            url=source.url,
            parts='["good", "dies"]',
            max_running=4,
            more='isolate = true\nbackoff = { base = "0.1s" }',
        ),
    )
    project.scrapy("apply")
    project.scrapy("load", "maker/things")
    assert states(engine) == {"loaded"}
    failed = "SELECT error FROM catlog.instance_attempt WHERE outcome = 'failed'"
    assert "SIGKILL" in rows(engine, failed)[0][0]
    assert rows(engine, "SELECT count(*) FROM things") == [(100,)]


def test_partial_load_removes_nothing_and_halved_snapshot_is_refused(
    engine: Engine, database_url: str, tmp_path: Path, source: Source
) -> None:
    project = given_a_project(tmp_path, database_url, source, parts=["a", "b"])
    project.scrapy("load", "maker/things")
    project.scrapy("load", "maker/things", "-a", "pages=1")
    project.scrapy("load", "maker/things", "-a", "part=b")
    assert rows(engine, "SELECT count(*) FROM things") == [(100,)]
    project.write("shop/spiders/things.py", SPIDER.replace('pages: str = "5"', 'pages: str = "2"'))
    said = project.scrapy("load", "maker/things", code=1)
    assert "would remove 60 of 100 records" in said
    assert rows(engine, "SELECT count(*) FROM things") == [(100,)]


def test_mistake_of_a_user_is_one_line_and_exit_code_2(
    database_url: str, tmp_path: Path, source: Source
) -> None:
    project = given_a_project(tmp_path, database_url, source, parts=["a"])
    for arguments, words in (
        (("load", "maker/nothing"), "no scheme maker/nothing; there are: maker/things"),
        (("load", "maker/things/other"), "has no operation 'other'; it has things"),
        (("load", "maker/things", "-a", "colour=red"), "has an argument 'colour'"),
        (("load", "maker/things", "--colour"), "unknown option --colour"),
        (("load",), "write one PROVIDER/SCHEME"),
        (("status", "ffffffff"), "no catalog with the id"),
        (("sql", "select * from nowhere"), 'relation "nowhere" does not exist'),
        (("sql", "delete from catlog.provider"), "read-only"),
        (("backfill", "maker/things", "--from", "x", "--to", "y"), "--from YYYY-MM-DD"),
        (("retry", "ffffffff"), "no catalog with the id"),
        (("crawl", "nobody"), "unknown spider 'nobody'"),
        (("work", "--concurrency", "0"), "use a whole number above 0"),
    ):
        said = project.scrapy(*arguments, code=2)
        assert words in said
        assert len(said.strip().splitlines()) <= 3, said


def test_unreachable_database_is_one_line(tmp_path: Path) -> None:
    project = Project(tmp_path, "postgresql://nobody:hidden@127.0.0.1:1/nothing")
    said = project.scrapy("status", code=2)
    assert "No connection to postgresql://nobody:***@127.0.0.1:1/nothing: " in said


def test_commands_outside_of_a_catlog_project_fail_with_one_line(tmp_path: Path) -> None:
    project = Project(tmp_path, None)
    (tmp_path / "scrapy.cfg").unlink()
    assert "no Scrapy project here" in project.scrapy("load", "a/b", code=2)
    project.write("scrapy.cfg", "[settings]\ndefault = shop.settings\n")
    project.write("shop/settings.py", 'SPIDER_MODULES = ["shop.spiders"]\n')
    assert "does not use catlog" in project.scrapy("load", "a/b", code=2)


def test_scrapy_crawl_is_unchanged_in_a_project_without_catlog(tmp_path: Path) -> None:
    project = Project(tmp_path, None)
    project.write("shop/settings.py", 'SPIDER_MODULES = ["shop.spiders"]\n')
    spider = """
        import scrapy


        class Plain(scrapy.Spider):
            name = "plain"

            async def start(self):
                yield {"colour": self.colour}
        """
    project.write("shop/spiders/plain.py", spider)
    project.scrapy("crawl", "plain", "-a", "colour=red", "-O", "out.json")
    assert '"colour": "red"' in (tmp_path / "out.json").read_text()
    assert not (tmp_path / ".catlog").exists()
