"""School platform of the demo: size, pages, change feed and login."""

import datetime as dt
from collections import Counter
from typing import Any
from urllib.parse import parse_qsl

import orjson
import pytest

from catlog_scrapy.demo import school
from catlog_scrapy.demo.source import DemoRequest, World


def get(path: str, world: World, *, token: str | None = None, **query: Any) -> tuple[int, Any]:
    token = school.token(world.step) if token is None else token
    asked = {name: str(value) for name, value in query.items()}
    headers = {"authorization": f"Bearer {token}"}
    reply = school.respond(DemoRequest("GET", path, asked, headers), world)
    return (reply.status, orjson.loads(reply.body)) if reply else (404, None)


def log_in(world: World, **said: str) -> tuple[int, Any]:
    reply = school.respond(DemoRequest("POST", "login", body=orjson.dumps(said)), world)
    assert reply
    return reply.status, orjson.loads(reply.body)


def pages(path: str, world: World, **query: Any) -> list[Any]:
    """Return all entries of *path*, by following `next`."""
    found: list[Any] = []
    while True:
        status, page = get(path, world, **query)
        assert status == 200, page
        found += page["changes" if path.endswith("changes") else "items"]
        if page["next"] is None:
            assert len(found) == page["total"]
            return found
        query = dict(parse_qsl(page["next"].partition("?")[2]))


def test_demo_school_has_its_declared_size() -> None:
    sizes = {kind: len(records) for kind, records in school.state(0).items()}
    assert sizes == {
        "persons": 2000,
        "organisations": 20,
        "classes": 60,
        "pupils": 1500,
        "marks": 90_000,
        "averages": 18_000,
    }


@pytest.mark.parametrize("step", [0, 1, 7])
def test_demo_school_has_no_dangling_references(step: int) -> None:
    now = school.state(step)
    for kind, field, other in (
        ("pupils", "person", "persons"),
        ("pupils", "class", "classes"),
        ("classes", "organisation", "organisations"),
        ("classes", "teacher", "persons"),
        ("marks", "pupil", "pupils"),
        ("averages", "pupil", "pupils"),
    ):
        assert {record[field] for record in now[kind].values()} <= now[other].keys(), kind
    counted = Counter((mark["pupil"], mark["subject"]) for mark in now["marks"].values())
    assert counted == {
        (mean["pupil"], mean["subject"]): mean["marks"] for mean in now["averages"].values()
    }


def test_demo_school_has_foreign_scripts_and_odd_values() -> None:
    text = orjson.dumps([list(records.values()) for records in school.state(0).values()]).decode()
    for part in ("Ђорђе", "سارة", "לוי", "👏", '"4,5"', "+01:00", "+02:00", "+03:00", "O’Neill"):
        assert part in text, part


@pytest.mark.parametrize("step", range(1, 8))
def test_change_of_the_demo_school_is_small(step: int) -> None:
    for kind in school.KINDS:
        ops = Counter(change.op for change in school.changes(kind, step))
        assert set(ops) >= {"created", "deleted"}, kind
        assert 0 < sum(ops.values()) <= max(0.05 * len(school.state(step)[kind]), 3), kind
        assert kind in ("organisations", "classes") or ops["updated"] > 0


def test_demo_school_changes_lead_to_the_full_state_of_a_later_day() -> None:
    world = World()
    first = {kind: pages(kind, world) for kind in school.KINDS}
    assert [len(first[kind]) for kind in school.KINDS] == [2000, 20, 60, 1500, 90_000, 18_000]
    world.step = 3
    for kind in school.KINDS:
        known = {entry["id"]: entry for entry in first[kind]}
        for change in pages(f"{kind}/changes", world, since=school.now(0) - school.LATE * 2):
            if change["op"] == "deleted":
                known.pop(change["id"])
            else:
                known[change["id"]] = change["data"]
        assert sorted(known) == sorted(school.state(3)[kind]), kind
        assert known == school.state(3)[kind], kind


def test_demo_change_feed_is_ordered_by_time_with_a_late_change() -> None:
    for kind in school.KINDS:
        at = [change.at for change in school.feed(kind, school.now(0), 2)]
        assert at == sorted(at), kind
        (late,) = [c for c in school.changes(kind, 2) if c.at <= school.now(1)]
        assert late.at == school.now(1) - dt.timedelta(minutes=5)
        assert late not in school.feed(kind, school.now(0), 1)
        assert late not in school.feed(kind, school.now(1), 2)
        assert late in school.feed(kind, school.now(1) - dt.timedelta(minutes=10), 2)
        assert all(change.at <= school.now(2) for change in school.changes(kind, 2))


def test_demo_school_pages_keep_the_time_of_the_first_page() -> None:
    world = World()
    first = get("pupils", world)[1]
    assert (first["cursor"], len(first["items"])) == ("2026-03-27T21:00:00+03:00", 500)
    world.step = 1
    second = get("pupils", world, page=2, as_of=first["cursor"])[1]
    assert [entry["id"] for entry in second["items"]] == list(range(501, 1001))
    assert second["cursor"] == first["cursor"]
    assert get("pupils", world, page=2)[1]["items"][0]["id"] == 506


def test_demo_school_login_expires_with_the_next_change() -> None:
    world = World()
    assert log_in(world, user=school.USER, password="x") == (
        403,
        {"error": "wrong user or password"},
    )
    status, said = log_in(world, user=school.USER, password=school.PASSWORD)
    assert status == 200
    assert get("pupils", world, token=said["token"])[0] == 200
    assert get("pupils", world, token="another")[0] == 401
    world.step = 1
    assert get("pupils", world, token=said["token"]) == (401, {"error": "log in"})


@pytest.mark.parametrize(
    ("path", "query", "status"),
    [
        ("pupils/changes", {}, 400),
        ("pupils/changes", {"since": "yesterday"}, 400),
        ("pupils/changes", {"since": "2026-03-27T21:00:00"}, 400),
        ("pupils", {"page": 0}, 400),
        ("pupils", {"page": "x"}, 400),
        ("pupils", {"per_page": 1001}, 400),
        ("pupils", {"page": 99}, 200),
        ("pupils/names", {}, 404),
        ("teachers", {}, 404),
        ("", {}, 404),
    ],
)
def test_demo_school_answers_invalid_requests_with_errors(
    path: str, query: dict[str, Any], status: int
) -> None:
    assert get(path, World(), **query)[0] == status
