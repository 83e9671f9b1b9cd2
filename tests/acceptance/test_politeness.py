"""Politeness rules of a source, checked in the source's own log."""

import itertools
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from catlog_scrapy.demo.server import DemoServer, Visit
from tests.support.project import Project
from tests.support.waiting import rows, until

# Twenty pages, eight of them requested at once.
SPIDER = """
from catlog_scrapy.records import Record
from scrapy import Request, Spider


class Thing(Record, key=("part", "number"), view="things"):
    part: str
    number: int


class Things(Spider):
    name = "things"
    record = Thing
    base_url = ""
    part = "a"

    async def start(self):
        for number in range(20):
            yield Request(f"{self.base_url}/fuel-prices?{number}", cb_kwargs={"number": number})

    def parse(self, response, number):
        yield {"part": self.part, "number": number}
"""
DECLARATION = """
[provider]
name = "maker"
base_url = "{url}/fuel"
max_running = 2

[[scheme]]
name = "things"
max_errors = 1
[[scheme.operation]]
name = "things"
for_each = ["a", "b", "c", "d", "e", "f"]
arguments = {{ part = "{{part}}" }}
"""
LOAD = ("load", "maker/things")
ALONE = (*LOAD, "-a", "part=a")


@pytest.fixture
def demo() -> Iterator[DemoServer]:
    with DemoServer(fuel_delay=0) as demo:
        yield demo


@pytest.fixture
def project(demo: DemoServer, tmp_path: Path, database_url: str) -> Project:
    project = Project(tmp_path, database_url)
    settings = project.folder / "shop/settings.py"
    settings.write_text(settings.read_text().replace("RETRY_TIMES = 0", "ROBOTSTXT_OBEY = True\n"))
    project.write("shop/spiders/things.py", SPIDER)
    project.write("shop/providers/maker.toml", DECLARATION.format(url=demo.url))
    project.scrapy("apply")
    return project


def pages(demo: DemoServer) -> list[Visit]:
    return [visit for visit in demo.visits if visit.path != "/robots.txt"]


def most_at_once(visits: list[Visit]) -> int:
    """Return the largest number of simultaneous *visits*."""
    moments = [(visit.began, 1) for visit in visits]
    moments += [(visit.ended or time.monotonic(), -1) for visit in visits]
    return max(itertools.accumulate(change for _, change in sorted(moments)))


def test_urls_forbidden_by_robots_txt_are_not_requested(
    engine: Engine, project: Project, demo: DemoServer
) -> None:
    demo.misbehave("/robots.txt", body=b"User-agent: *\nDisallow: /fuel/fuel-prices?1\n")
    project.scrapy(*ALONE, code=1)
    assert sorted(visit.path for visit in pages(demo)) == [
        f"/fuel/fuel-prices?{number}" for number in (0, *range(2, 10))
    ]
    [(error,)] = rows(engine, "SELECT error FROM catlog.instance_attempt")
    assert "11 requests blocked by robots.txt" in error
    assert "forbidden by robots.txt" in error


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_delays_the_next_requests(
    engine: Engine, project: Project, demo: DemoServer, status: int
) -> None:
    demo.misbehave("/fuel/fuel-prices", delay=0.05)
    asks = {"Retry-After": "2"}
    demo.misbehave("/fuel/fuel-prices?3", status=status, headers=asks, times=1)
    project.scrapy(*ALONE)
    visits = pages(demo)
    [refused] = [visit for visit in visits if visit.status == status]
    # Requests that were sent before the answer may still come.
    after = [visit for visit in visits if visit.began > (refused.ended or 0) + 1.0]
    assert len(visits) == 21
    assert refused.path in [visit.path for visit in after]
    assert min(visit.began for visit in after) - (refused.ended or 0) > 1.9
    assert rows(engine, "SELECT outcome FROM catlog.instance_attempt") == [("done",)]


def test_long_retry_after_reschedules_the_instance(
    engine: Engine, project: Project, demo: DemoServer
) -> None:
    declaration = project.folder / "shop/providers/maker.toml"
    declaration.write_text(declaration.read_text().replace("max_errors = 1", "max_errors = 2"))
    project.scrapy("apply")
    demo.misbehave("/fuel/fuel-prices?7", status=429, headers={"Retry-After": "3600"})
    load = project.start(*ALONE)
    waits = """SELECT i.available_at - a.finished_at > interval '59 min', a.outcome, a.error
               FROM catlog.instance_attempt a JOIN catlog.catalog_scheme_operation_instance i
                   ON i.id = a.instance_id WHERE a.outcome IS NOT NULL"""
    found = until(lambda: rows(engine, waits))
    load.terminate()
    load.communicate()
    [(is_later, outcome, error)] = found
    assert (is_later, outcome) == (True, "incomplete")
    assert "429" in error
    assert [visit.status for visit in pages(demo)].count(429) == 1


def test_max_running_limits_concurrent_crawls_of_a_provider(
    engine: Engine, project: Project, demo: DemoServer
) -> None:
    with (project.folder / "shop/settings.py").open("a") as settings:
        settings.write("CONCURRENT_REQUESTS_PER_DOMAIN = 1\n")
    demo.misbehave("/fuel/fuel-prices", delay=0.05)
    workers = [project.start("work") for _ in range(3)]
    project.scrapy(*LOAD)
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.communicate()
    assert len(pages(demo)) == 120
    assert most_at_once(pages(demo)) == 2
    nodes = "SELECT count(DISTINCT outcome), min(outcome) FROM catlog.instance_attempt"
    assert rows(engine, nodes) == [(1, "done")]


def test_autothrottle_slows_down_for_a_slow_source(project: Project, demo: DemoServer) -> None:
    settings = project.folder / "shop/settings.py"
    with settings.open("a") as file:
        file.write("AUTOTHROTTLE_ENABLED = True\nAUTOTHROTTLE_START_DELAY = 0\n")
        file.write("RANDOMIZE_DOWNLOAD_DELAY = False\n")
    project.scrapy(*ALONE)
    quick = middle_gap(demo)
    demo.visits.clear()
    demo.misbehave("/fuel/fuel-prices", delay=0.3)
    project.scrapy(*ALONE)
    # AutoThrottle allows one request at a time once it has measured the first.
    assert quick < 0.25 < middle_gap(demo)


def middle_gap(demo: DemoServer) -> float:
    """Return the median of the seconds between visits."""
    began = sorted(visit.began for visit in pages(demo))
    return statistics.median(later - earlier for earlier, later in itertools.pairwise(began))
