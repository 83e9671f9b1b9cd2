"""Faults of all five sources: a load is complete, or fails with the true reason.

By the spiders and declarations of catlog's own project, from the local server.
"""

import os
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from catlog_scrapy.demo import learning, school
from catlog_scrapy.demo.server import SOURCES, DemoServer
from catlog_scrapy.store.queue import catalogs
from tests.support.project import Project
from tests.support.waiting import rows, until

pytestmark = pytest.mark.slow

PACKAGE = Path(school.__file__).parents[1]
# Number of times that the worker is killed during each source.
KILLS = int(os.environ.get("SOURCE_KILLS", "10"))
DAY = {"date": "2026-03-01"}
FUEL = ("stations", "prices", "references")
KINDS = ("persons", "organisations", "classes", "pupils")

# The schemes of each of the five, with arguments where the day matters.
FIVE: dict[str, dict[str, dict[str, str]]] = {
    "groceries": {"SK/new": {}},
    "ornaments": {
        "hallmark_ornaments_com/products": {},
        "hookedonhallmark_com/products": {},
        "ornament_shop_com/products": {},
    },
    "fuel": {f"tatneft/{scheme}": {} for scheme in FUEL},
    "learning": {"learning/attempts": DAY},
    "school": {f"school/{kind}": {} for kind in KINDS},
}
# The products of a shop are those of its year links.
LINKS = [name.replace("/products", "/year_links") for name in FIVE["ornaments"]]
ALL = {name: arguments for schemes in FIVE.values() for name, arguments in schemes.items()}

DATA = """SELECT kind, key, (data - 'image' - 'images')::text FROM catlog.records()
    WHERE removed_at IS NULL ORDER BY 1, 2"""


@pytest.fixture
def demo() -> Iterator[DemoServer]:
    with DemoServer(fuel_delay=0, years=(1973,)) as demo:
        yield demo


@pytest.fixture
def project(tmp_path: Path, database_url: str, demo: DemoServer, engine: Engine) -> Project:
    """Create a project with catlog's spiders, short delays, and 1 as `max_errors`."""
    project = Project(
        tmp_path,
        database_url,
        CATLOG_PROVIDERS=str(PACKAGE / "providers"),
        CATLOG_VIEWS=str(PACKAGE / "views"),
        CATLOG_SECRET_SCHOOL_USER=school.USER,
        CATLOG_SECRET_SCHOOL_PASSWORD=school.PASSWORD,
        CATLOG_SECRET_LEARNING_CLIENT=learning.CLIENT,
        CATLOG_SECRET_LEARNING_CLIENT_KEY=learning.CLIENT_KEY,
        **{
            f"CATLOG_BASE_URL_{source.provider.upper()}": f"{demo.url}/{source.name}"
            for source in SOURCES.values()
        },
    )
    project.write(
        "shop/settings.py", "from catlog_scrapy.settings import *\nDOWNLOAD_TIMEOUT = 20\n"
    )
    project.scrapy("apply")
    rows(engine, "UPDATE catlog.catalog_scheme SET max_errors = 1 RETURNING id")
    create(engine, {name: {} for name in LINKS})
    project.scrapy("work", "--drain")
    return project


def create(engine: Engine, schemes: Mapping[str, Mapping[str, str]]) -> list[Any]:
    """Create a catalog of each scheme."""
    return [
        catalogs.create(engine, *name.split("/"), arguments=dict(arguments))
        for name, arguments in schemes.items()
    ]


def kinds_of(engine: Engine) -> list[str]:
    return [kind for (kind,) in rows(engine, "SELECT DISTINCT name FROM catlog.kind")]


def load(engine: Engine, project: Project, schemes: Mapping[str, Mapping[str, str]]) -> None:
    """Load all *schemes* by one worker, without their cursors."""
    rows(engine, "DELETE FROM catlog.cursor RETURNING part")
    for kind in kinds_of(engine):
        rows(engine, f"UPDATE records.{kind} SET _read_at = NULL RETURNING _id")
    create(engine, schemes)
    project.scrapy("work", "--drain")


def ends(engine: Engine) -> dict[str, tuple[str, str]]:
    """Return state and error of the newest catalog of each scheme."""
    found = rows(
        engine,
        """SELECT DISTINCT ON (p.name, s.name) p.name || '/' || s.name, c.state, c.error
           FROM catlog.catalog c JOIN catlog.catalog_scheme s ON s.id = c.scheme_id
           JOIN catlog.provider p ON p.id = c.provider_id
           ORDER BY p.name, s.name, c.created_at DESC""",
    )
    return {name: (state, error or "") for name, state, error in found}


@dataclass
class Case:
    """Fault of all sources, and the error of their failed loads; "" means that no load may fail.

    `but` maps sources to errors of their own.
    """

    how: dict[str, Any]
    reason: str = ""
    but: dict[str, str] = field(default_factory=dict)


def renamed(body: bytes) -> bytes:
    """Return *body* after a change of markup: other words than the spiders look for."""
    for old, new in MARKUP.items():
        body = re.sub(old, new, body)
    return body


MARKUP = {
    rb"var products": b"var articles",
    rb"<b>([^<]*):</b>": rb"<i>\1</i>",
    rb"<dt>(\w+)</dt>": rb"<dt>\1:</dt>",
    rb'"(id|user_id|fuel_prices|name|total)":': rb'"new_\1":',
    rb"CategoryLink_root": b"Link_category",
}
BROWSER = r"requests? failed|showcases|there is no|CategoryLink|closed|HTTP|status"
CASES = {
    "slow": Case({"delay": 0.3}),
    "429, come back in a second": Case(
        {"status": 429, "headers": {"Retry-After": "1"}, "times": 1}
    ),
    "500 once": Case({"status": 500, "times": 1}),
    "cut once": Case({"cut": True, "times": 1}),
    "closed once": Case({"close": True, "times": 1}),
    "500 for ever": Case({"status": 500}, r"500", {"SK/new": BROWSER}),
    "cut for ever": Case({"cut": True}, r"truncated|given up", {"SK/new": BROWSER}),
    "closed for ever": Case({"close": True}, r"requests? failed", {"SK/new": BROWSER}),
    "a page that asks to log in": Case(
        {"body": b"<html><body><h1>Please log in</h1></body></html>"},
        r"markup has changed|source has changed|JSON|unexpected character",
        {"SK/new": BROWSER},
    ),
    "nothing": Case(
        {"body": b""},
        r"markup has changed|source has changed|JSON|Expecting value|unexpected",
        {"SK/new": BROWSER},
    ),
    "changed markup": Case(
        {"rewrite": renamed},
        r"markup has changed|source has changed|items? rejected|KeyError",
    ),
}
# A source's first answer of its sort: what is told to fail once fails where it matters.
FIRST = {
    "SK/new": "/samokat/v2/showcases/new",
    "hallmark_ornaments_com/products": "/hallmark/year",
    "hookedonhallmark_com/products": "/hooked/products",
    "ornament_shop_com/products": "/ornament_shop/artikel",
    "tatneft/stations": "/fuel/fuel-stations",
    "tatneft/prices": "/fuel/fuel-prices",
    "tatneft/references": "/fuel/services",
    "learning/attempts": "/learning",
    **{f"school/{kind}": f"/school/{kind}" for kind in KINDS},
}
# A failure that the browser's page meets once is not asked for again: its next attempt does.
ONE_ATTEMPT = {"SK/new"}


def test_load_under_source_faults_is_complete_or_fails_with_the_true_reason(
    engine: Engine, project: Project, demo: DemoServer
) -> None:
    load(engine, project, ALL)
    undisturbed = rows(engine, DATA)
    assert {state for state, _ in ends(engine).values()} == {"loaded"}
    assert len({kind for kind, *_ in undisturbed}) > 10
    wrong = []
    for title, case in CASES.items():
        for path in FIRST.values():
            demo.misbehave(path, **case.how)
        load(engine, project, ALL)
        demo.behave()
        found = ends(engine)
        for name in ALL:
            state, error = found[name]
            reason = case.but.get(name, case.reason) if case.reason else ""
            passed = not case.reason and name in ONE_ATTEMPT and state == "failed"
            if (state == "loaded" and not reason) or passed:
                continue
            if state != "failed" or not reason or not re.search(reason, error):
                wrong.append(f"{title}: {name} {state} {error}")
        if rows(engine, DATA) != undisturbed:
            wrong.append(f"{title}: the data are others")
    assert wrong == []


def killed(engine: Engine, project: Project, chance: random.Random, took: float) -> None:
    """Start a worker, and kill it within *took* seconds after its first claim, mostly soon."""
    before = rows(engine, ATTEMPTS)
    worker = project.start("work", "--drain")
    until(lambda: worker.poll() is not None or rows(engine, ATTEMPTS) > before)
    time.sleep(chance.random() ** 3 * took)
    worker.kill()
    worker.communicate()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("source", FIVE)
def test_loads_of_workers_killed_at_random_moments_become_complete(
    engine: Engine, project: Project, source: str, undisturbed_of: Callable[[str], list[Any]]
) -> None:
    expected = undisturbed_of(source)
    project.environment["CATLOG_LEASE"] = "10"
    create(engine, FIVE[source])
    chance = random.Random(source)
    for _ in range(KILLS):
        killed(engine, project, chance, 2.0)
        # Retry the catalogs that failed after three losses, and load the loaded ones again.
        for name, (state, _) in ends(engine).items():
            if state == "failed":
                [(catalog,)] = rows(engine, NEWEST, name=name)
                project.scrapy("retry", catalog)
            elif state == "loaded" and name in FIVE[source]:
                create(engine, {name: FIVE[source][name]})
    while "failed" in finished(engine, project):
        for (catalog,) in rows(
            engine, "SELECT id::text FROM catlog.catalog WHERE state = 'failed'"
        ):
            project.scrapy("retry", catalog)
    assert rows(engine, DATA) == expected
    assert rows(engine, TWICE) == []
    if KILLS >= 10:  # of fewer, all may have come too early
        assert rows(engine, LOST) > [(0,)]


def finished(engine: Engine, project: Project) -> set[str]:
    """Run a worker until the queue is empty; return the states of all catalogs."""
    project.scrapy("work", "--drain")
    return {state for state, _ in ends(engine).values()}


@pytest.fixture
def undisturbed_of(engine: Engine, project: Project) -> Callable[[str], list[Any]]:
    """Return a function that loads a source without faults, and returns and deletes its data."""

    def undisturbed(source: str) -> list[Any]:
        load(engine, project, FIVE[source])
        data = rows(engine, DATA)
        rows(engine, "DELETE FROM catlog.cursor RETURNING 1")
        for kind in kinds_of(engine):
            # The products come from the year links.
            if kind != "year_links":
                rows(engine, f"DELETE FROM records.{kind} RETURNING 1")
                rows(engine, f"DELETE FROM records.{kind}_versions RETURNING 1")
        return data

    return undisturbed


NEWEST = """SELECT c.id::text FROM catlog.catalog c
    JOIN catlog.catalog_scheme s ON s.id = c.scheme_id
    JOIN catlog.provider p ON p.id = c.provider_id
    WHERE p.name || '/' || s.name = :name ORDER BY c.created_at DESC LIMIT 1"""
FAILED = "SELECT id::text FROM catlog.catalog WHERE state = 'failed'"
ATTEMPTS = "SELECT count(*) FROM catlog.instance_attempt"
LOST = "SELECT count(*) FROM catlog.instance_attempt WHERE outcome = 'lost'"
TWICE = """SELECT instance_id FROM catlog.instance_attempt WHERE outcome = 'done'
    GROUP BY instance_id HAVING count(*) > 1"""
