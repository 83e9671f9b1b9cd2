"""Time limits in real processes: stalled sources, unopened spiders, lost packets."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.acceptance.test_faults import SPIDER, given_a_project, kill, states
from tests.support.proxy import Proxy
from tests.support.source import Answer, Source
from tests.support.waiting import rows, until

ATTEMPTS = """SELECT i.part, a.outcome, a.error FROM catlog.instance_attempt a
    JOIN catlog.catalog_scheme_operation_instance i ON i.id = a.instance_id
    ORDER BY i.part, a.attempt"""


@pytest.fixture
def source() -> Iterator[Source]:
    with Source() as source:
        source.answers = {f"/page?{page}": Answer(b"[]", delay=0.02) for page in range(1, 400)}
        yield source


def requests_at_rest(source: Source) -> int:
    """Wait until the number of requests stops growing, and return the number."""
    asked = -1
    while len(source.requests) != asked:
        asked = len(source.requests)
        time.sleep(3)
    return asked


def test_stalled_source_times_out_only_its_own_crawl(
    engine: Engine, database_url: str, tmp_path: Path, source: Source
) -> None:
    project = given_a_project(
        tmp_path,
        database_url,
        source,
        parts=["good", "stalls"],
        more='stall_timeout = "4s"\nbackoff = { base = "0.1s" }',
    )
    marker = tmp_path / "stalled"
    # The good crawl outlives the stalled crawl, so their process has not been replaced.
    spider = SPIDER.replace(
        "        page = int",
        "        if self.part == 'stalls' and not self.stalled.exists():\n"
        "            self.stalled.touch()\n"
        "            for n in range(20):\n"
        "                yield Request(self.base_url + f'/stalls?{n}')\n"
        "            return\n"
        "        page = int",
    ).replace(
        'pages: str = "5"',
        f'pages: str = "5"\n    stalled = __import__("pathlib").Path({str(marker)!r})\n'
        "    good = property(lambda self: self.part == 'good')",
    )
    spider = spider.replace("int(self.pages)", "(390 if self.good else 5)")
    project.write("shop/spiders/things.py", spider)
    source.answers |= {f"/stalls?{n}": Answer(delay=600) for n in range(20)}
    project.scrapy("load", "maker/things")
    reason = "nothing came for 4 s (no response, no item)"
    assert rows(engine, ATTEMPTS) == [
        ("good", "done", None),
        ("stalls", "timed_out", reason),
        ("stalls", "done", None),
    ]
    [(seconds, log)] = rows(
        engine,
        """SELECT extract(epoch FROM finished_at - started_at)::float, log
           FROM catlog.instance_attempt WHERE outcome = 'timed_out'""",
    )
    assert seconds > 4
    assert reason in Path(log).read_text()


def test_spider_that_never_opens_times_out(
    engine: Engine, database_url: str, tmp_path: Path, source: Source
) -> None:
    project = given_a_project(
        tmp_path, database_url, source, parts=["a"], more='start_timeout = "6s"'
    )
    project.write(
        "shop/pipelines.py",
        f"""
        import asyncio
        from pathlib import Path


        class Waits:
            async def open_spider(self):
                marker = Path({str(tmp_path / "waited")!r})
                if not marker.exists():
                    marker.touch()
                    await asyncio.sleep(600)

            def process_item(self, item):
                return item
        """,
    )
    settings = (tmp_path / "shop/settings.py").read_text()
    project.write("shop/settings.py", settings + 'ITEM_PIPELINES = {"shop.pipelines.Waits": 1}\n')
    project.scrapy("load", "maker/things")
    (_, first, error), (_, second, _) = rows(engine, ATTEMPTS)
    assert (first, second) == ("timed_out", "done")
    assert error.startswith("its spider had not opened after 6 s; it hung")


def test_isolated_process_that_never_begins_times_out(
    engine: Engine, database_url: str, tmp_path: Path, source: Source
) -> None:
    more = 'start_timeout = "20s"\nisolate = true\nbackoff = { base = "0.1s" }'
    project = given_a_project(tmp_path, database_url, source, parts=["a"], more=more)
    settings = (tmp_path / "shop/settings.py").read_text()
    project.write(
        "shop/settings.py",
        f"""
        import os
        import time
        from pathlib import Path

        if "CATLOG_ATTEMPT" in os.environ and not Path({str(tmp_path / "waited")!r}).exists():
            Path({str(tmp_path / "waited")!r}).touch()
            time.sleep(600)
        """,
    )
    with (tmp_path / "shop/settings.py").open("a") as file:
        file.write(settings)
    project.scrapy("load", "maker/things")
    assert rows(engine, ATTEMPTS) == [
        ("a", "timed_out", "its process had not begun after 20 s"),
        ("a", "done", None),
    ]


@pytest.mark.parametrize("fault", ["freeze", "cut"])
def test_crawl_that_waits_for_its_database_does_not_stall(
    engine: Engine, database_url: str, tmp_path: Path, source: Source, fault: str
) -> None:
    with Proxy(database_url) as proxy:
        project = given_a_project(
            tmp_path,
            proxy.url,
            source,
            parts=["a"],
            more='stall_timeout = "2s"',
            CATLOG_LEASE="60",
        )
        many = SPIDER.replace("range(10)", "range(4000)").replace("page * 10", "page * 4000")
        project.write("shop/spiders/things.py", many)
        load = project.start("load", "maker/things", "-a", "pages=20")
        stored = "SELECT 1 FROM catlog.catalog_operation_instance_result LIMIT 1"
        until(lambda: rows(engine, stored))
        getattr(proxy, fault)()
        time.sleep(6)
        assert requests_at_rest(source) < 20  # it does wait
        proxy.thaw()
        out, err = load.communicate()
        assert load.returncode == 0, out + err
    assert rows(engine, ATTEMPTS) == [("a", "done", None)]
    assert rows(engine, "SELECT count(*) FROM things") == [(20 * 4000,)]


def test_worker_with_lost_packets_stops_its_crawl_at_the_lease_end(
    engine: Engine, database_url: str, tmp_path: Path, source: Source
) -> None:
    project = given_a_project(tmp_path, database_url, source, parts=["a"])
    project.environment["CATLOG_LEASE"] = "3"
    with Proxy(database_url) as proxy, Source() as seen_by_the_first:
        seen_by_the_first.answers = {
            f"/page?{page}": Answer(b"[]", delay=0.1) for page in range(1, 400)
        }
        direct = dict(project.environment)
        project.environment |= {
            "CATLOG_DATABASE_URL": proxy.url,
            "CATLOG_BASE_URL_MAKER": seen_by_the_first.url,
        }
        load = project.start("load", "maker/things", "-a", "pages=300")
        until(lambda: seen_by_the_first.requests)
        proxy.freeze()
        assert requests_at_rest(seen_by_the_first) < 300
        project.environment = direct
        project.scrapy("work", "--drain")
        kill(load)
    assert states(engine) == {"loaded"}
    lost, done = rows(engine, ATTEMPTS)
    assert (lost[1], done[1]) == ("lost", "done")
    assert rows(engine, "SELECT count(*) FROM things") == [(3000,)]
