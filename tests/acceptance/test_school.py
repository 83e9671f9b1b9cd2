"""School data, loaded by real processes: a full load, then incremental loads, under faults."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from catlog_scrapy.db.engine import make_engine
from catlog_scrapy.demo import school
from catlog_scrapy.demo.server import DemoServer
from tests.support.postgres import Postgres
from tests.support.project import Project
from tests.support.waiting import rows, until

PROVIDERS = Path(school.__file__).parents[1] / "providers"
VIEWS = ("persons", "organisations", "classes", "pupils", "marks", "pupil_averages")
CURSORS = "SELECT value FROM catlog.cursor"


@pytest.fixture
def source() -> Iterator[DemoServer]:
    with DemoServer() as server:
        yield server


@pytest.fixture
def fresh(postgres: Postgres) -> Iterator[str]:
    """Return the URL of a second database."""
    with postgres.clone() as url:
        yield url


@pytest.fixture
def project(tmp_path: Path, database_url: str, source: DemoServer) -> Project:
    return given_a_school(tmp_path, database_url, source)


def given_a_school(folder: Path, url: str, source: DemoServer) -> Project:
    """Create a project with catlog's spiders and its school provider, with a short backoff."""
    project = Project(
        folder,
        url,
        CATLOG_HOME=str(folder / "home"),
        CATLOG_PROVIDERS=str(folder / "providers"),
        CATLOG_VIEWS=str(folder / "views"),
        CATLOG_BASE_URL_SCHOOL=f"{source.url}/school",
        CATLOG_SECRET_SCHOOL_USER=school.USER,
        CATLOG_SECRET_SCHOOL_PASSWORD=school.PASSWORD,
    )
    project.write("shop/settings.py", "from catlog_scrapy.settings import *\n")
    declaration = (PROVIDERS / "school.toml").read_text(encoding="utf-8")
    quick = 'overlap = "10m"\nbackoff = { base = "0.1s" }'
    project.write("providers/school.toml", declaration.replace('overlap = "10m"', quick))
    project.scrapy("apply")
    return project


def current(engine: Engine, view: str) -> list[Any]:
    """Return the rows of *view*, without the times of its loads."""
    return sorted(
        row
        for (row,) in rows(
            engine,
            f"""SELECT (to_jsonb(v) - ARRAY['created_at', 'updated_at', 'provider'])::text
                FROM {view} v""",
        )
    )


def pupils(engine: Engine) -> dict[int, int]:
    """Return the class of each pupil."""
    return dict(rows(engine, "SELECT id, class_id FROM pupils"))


def pupils_after(step: int) -> dict[int, int]:
    return {number: pupil["class"] for number, pupil in school.state(step)["pupils"].items()}


def test_incremental_school_loads_equal_a_full_load(
    engine: Engine, project: Project, fresh: str, tmp_path: Path, source: DemoServer
) -> None:
    project.scrapy("load", "school/everything")
    counts = {view: rows(engine, f"SELECT count(*) FROM {view}")[0][0] for view in VIEWS}
    assert list(counts.values()) == [2000, 20, 60, 1500, 90_000, 18_000]
    whole = len(source.visits)
    # Each kind after those that it speaks of.
    paths = [path.split("?")[0] for path in source.requests]
    assert list(dict.fromkeys(path for path in paths if path.startswith("/school/"))) == [
        "/school/login",
        *(f"/school/{kind}" for kind in school.KINDS),
    ]

    source.change()
    project.scrapy("load", "school/everything")
    asked = len(source.visits) - whole
    assert asked <= 0.1 * whole, f"{asked} requests after {whole}"

    given_a_school(tmp_path / "other", fresh, source).scrapy("load", "school/everything")
    other = make_engine(fresh)
    for view in VIEWS:
        assert current(engine, view) == current(other, view), view
    other.dispose()

    # Deleted and changed records have a history.
    history = "SELECT id, change FROM pupils_history WHERE valid_to IS NOT NULL ORDER BY id"
    assert rows(engine, history) == [
        *((number, "removed") for number in range(1, 6)),
        *((number, "changed") for number in range(251, 1500, 250)),
    ]
    removed = "SELECT count(*) FROM marks_history WHERE change = 'removed' AND pupil_id <= 5"
    assert rows(engine, removed) == [(300,)]
    logs = list((project.folder / "home").rglob("*.log"))
    assert logs and not any(school.PASSWORD in path.read_text() for path in logs)

    # Nothing new: a login and a question, and no results.
    before = len(source.visits)
    project.scrapy("load", "school/pupils")
    assert [path.split("?")[0] for path in source.requests[before:]] == [
        "/robots.txt",
        "/school/login",
        "/school/pupils/changes",
    ]


@pytest.mark.parametrize(("overlap", "arrives"), [("10m", True), ("1m", False)])
def test_late_school_change_is_loaded_within_the_overlap(
    engine: Engine, project: Project, source: DemoServer, overlap: str, arrives: bool
) -> None:
    declaration = project.folder / "providers/school.toml"
    declaration.write_text(declaration.read_text().replace('"10m"', f'"{overlap}"'))
    project.scrapy("apply")
    project.scrapy("load", "school/pupils")
    ((cursor,),) = rows(engine, CURSORS)
    (late,) = [change for change in school.changes("pupils", 1) if change.at < school.now(0)]
    assert late.at.isoformat() < cursor
    source.change()
    project.scrapy("load", "school/pupils")
    assert (late.id in pupils(engine)) is arrives
    assert (pupils(engine) == pupils_after(1)) is arrives


def test_failed_school_load_does_not_move_the_cursor(
    engine: Engine, project: Project, source: DemoServer
) -> None:
    project.scrapy("load", "school/pupils")
    assert pupils(engine) == pupils_after(0)
    begun = rows(engine, CURSORS)
    source.change()
    source.misbehave("/school/pupils/changes", status=500)
    assert "HTTP 500" in project.scrapy("load", "school/pupils", code=1)
    assert rows(engine, CURSORS) == begun
    assert pupils(engine) == pupils_after(0)
    source.behave()
    source.change()
    project.scrapy("load", "school/pupils")
    assert pupils(engine) == pupils_after(2)
    assert rows(engine, CURSORS) == [(school.now(2).isoformat(),)]
    asked = {path for path in source.requests if path.startswith("/school/pupils/changes")}
    assert len(asked) == 1, "the failed interval again, and on to the end"


@pytest.mark.parametrize("path", ["/school/pupils?page=2", "/school/pupils/changes"])
def test_school_load_of_a_killed_worker_is_repeated_from_its_cursor(
    engine: Engine, project: Project, source: DemoServer, path: str
) -> None:
    if path.endswith("changes"):
        project.scrapy("load", "school/pupils")
        source.change()
    source.misbehave(path, delay=60)
    project.environment["CATLOG_LEASE"] = "10"
    load = project.start("load", "school/pupils")
    until(lambda: source.requests and source.requests[-1].startswith(path))
    load.kill()
    load.communicate()
    source.behave()
    project.scrapy("work", "--drain")
    assert pupils(engine) == pupils_after(source.world.step)
    assert rows(engine, CURSORS) == [(school.now(source.world.step).isoformat(),)]
    last, lost = rows(
        engine,
        "SELECT outcome, read_from FROM catlog.instance_attempt ORDER BY started_at DESC LIMIT 2",
    )
    assert (last[0], lost[0]) == ("done", "lost")
    assert last[1] == lost[1], "from where the lost one began"


def test_school_token_that_expires_during_a_load_is_renewed(
    engine: Engine, project: Project, source: DemoServer
) -> None:

    def change(body: bytes) -> bytes:
        source.change()
        return body

    source.misbehave("/school/pupils?page=2", rewrite=change, times=1)
    project.scrapy("load", "school/pupils")
    assert [visit.path.split("&")[0] for visit in source.visits if visit.status == 401] == [
        "/school/pupils?page=3"
    ]
    assert source.requests.count("/school/login") == 2
    # The pages were those of one moment, and what has happened since comes next.
    assert pupils(engine) == pupils_after(0)
    project.scrapy("load", "school/pupils")
    assert pupils(engine) == pupils_after(1)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (("/school/pupils", {"status": 401}), "refuses a token that the source has just issued"),
        (("/school/login", {"status": 403}), "refuses this user and password; correct them"),
        (
            ("/school/pupils", {"rewrite": lambda body: body.replace(b'"class"', b'"group"')}),
            "class_id: Input should be a valid integer",
        ),
        (
            ("/school/pupils", {"rewrite": lambda body: body.replace(b'"items"', b'"records"')}),
            "has no 'items': the source has changed",
        ),
        (
            (
                "/school/pupils",
                {"rewrite": lambda body: body.replace(b'"next"', b'"next": null, "then"')},
            ),
            "ends after 500 of 1500 items, and its next page is None",
        ),
        (("/school/pupils?page=2", {"status": 404}), "HTTP 404"),
        (
            ("/school/pupils?page=2", {"cut": True}),
            "is truncated: its connection closed before its end",
        ),
        (("/school/pupils", {"body": b"<h1>We have moved</h1>"}), "JSONDecodeError"),
    ],
)
def test_unreadable_school_source_fails_with_the_reason(
    engine: Engine,
    project: Project,
    source: DemoServer,
    fault: tuple[str, dict[str, Any]],
    reason: str,
) -> None:
    path, how = fault
    source.misbehave(path, **how)
    said = project.scrapy("load", "school/pupils", code=1)
    assert reason in said
    assert rows(engine, "SELECT * FROM pupils") == []
    assert rows(engine, CURSORS) == []
    assert len(source.visits) < 60, "it does not ask for ever"


@pytest.mark.parametrize(
    "how",
    [
        {"status": 500},
        {"status": 429, "headers": {"Retry-After": "1"}},
        {"close": True},
        {"cut": True},
        {"delay": 2.0},
        {"status": 401},
    ],
    ids=str,
)
def test_transient_source_fault_is_overcome(
    engine: Engine, project: Project, source: DemoServer, how: dict[str, Any]
) -> None:
    source.misbehave("/school/pupils?page=3", times=1, **how)
    project.scrapy("load", "school/pupils")
    assert pupils(engine) == pupils_after(0)


def test_school_load_without_a_cursor_reads_from_the_beginning(
    engine: Engine, project: Project, source: DemoServer
) -> None:
    project.scrapy("load", "school/pupils")
    rows(
        engine,
        """UPDATE records.pupils SET class_id = 999, _hash = gen_random_uuid()
           WHERE id = 7 RETURNING id""",
    )
    project.scrapy("load", "school/pupils")
    assert pupils(engine)[7] == 999
    cursor = rows(engine, CURSORS)
    [(catalog,)] = rows(engine, "SELECT id::text FROM catlog.catalog ORDER BY created_at LIMIT 1")
    assert f"read from the beginning to {cursor[0][0]}" in project.scrapy("status", catalog)
    project.scrapy("load", "school/pupils", "-a", "cursor=")
    assert pupils(engine) == pupils_after(0)
    assert rows(engine, CURSORS) == cursor
