"""Learning platform of the demo: stable attempts of any day, with defects and late attempts."""

import datetime as dt
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest

from catlog_scrapy.demo import learning
from catlog_scrapy.demo.server import DemoServer
from tests.unit.test_demo_server import get

DAY = dt.date(2026, 1, 5)
JANUARY = [dt.date(2026, 1, number) for number in range(1, 32)]


@pytest.fixture
def server() -> Iterator[DemoServer]:
    with DemoServer() as server:
        yield server


def ask(server: DemoServer, **query: str) -> tuple[int, Any]:
    asked = {
        "client": learning.CLIENT,
        "client_key": learning.CLIENT_KEY,
        "start": "2026-01-05T00:00:00+03:00",
        "end": "2026-01-06T00:00:00+03:00",
        **query,
    }
    status, body = get(server, f"/learning/attempts?{urlencode(asked)}")
    return status, orjson.loads(body)


def test_demo_day_has_attempts_and_a_few_defects() -> None:
    for day in (*JANUARY, dt.date(1999, 12, 31), dt.date(2040, 2, 29)):
        found = learning.attempts(day)
        assert (
            learning.MIN_ATTEMPTS
            <= len(found)
            < learning.MIN_ATTEMPTS + learning.MAX_EXTRA_ATTEMPTS
        )
        lengths = Counter(len(one["user_id"] or "") for one in found)
        assert lengths[0] > 0, day
        assert lengths[31] > 0, day
        assert lengths[0] + lengths[31] + lengths[32] == len(found)
        assert lengths[0] + lengths[31] < 0.05 * len(found)


def test_demo_attempts_have_unique_ids_and_only_submissions_a_verdict() -> None:
    found = [one for day in JANUARY for one in learning.attempts(day, 5)]
    assert len({one["id"] for one in found}) == len(found)
    verdicts = {(one["attempt_type"], one["is_correct"]) for one in found}
    assert verdicts == {("run", None), ("submit", True), ("submit", False)}
    offsets = {one["created_at"][-6:] for one in found}
    assert offsets == {"+01:00", "+03:00"}


def test_demo_attempts_are_the_same_in_every_process() -> None:
    program = (
        "import datetime, hashlib\n"
        "from catlog_scrapy.demo import learning\n"
        "said = repr(learning.attempts(datetime.date(2026, 1, 5), 2))\n"
        "print(hashlib.sha256(said.encode()).hexdigest(), end='')"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_change_of_demo_attempts_only_adds_late_attempts() -> None:
    former, latter = (learning.attempts(DAY, step) for step in (1, 2))
    assert len(latter) == len(former) + learning.LATE_ATTEMPTS
    assert [one for one in latter if one in former] == former


def test_learning_source_returns_the_attempts_of_the_requested_time(server: DemoServer) -> None:
    """A Moscow day begins at 21:00 UTC of the previous day."""
    status, found = ask(server)
    assert status == 200
    instants = [dt.datetime.fromisoformat(one["created_at"]) for one in found]
    start = dt.datetime(2026, 1, 4, 21, tzinfo=dt.UTC)
    assert all(start <= instant < start + dt.timedelta(days=1) for instant in instants)
    assert instants == sorted(instants)
    halves = [
        ask(server, end="2026-01-05T09:00:00+00:00"),
        ask(server, start="2026-01-05T09:00:00+00:00"),
    ]
    assert [one for _, half in halves for one in half] == found


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"client": "somebody"}, 401),
        ({"client_key": "guessed"}, 401),
        ({"client_key": ""}, 401),
        ({"start": "yesterday"}, 400),
        ({"start": "2026-01-05T00:00:00"}, 400),
        ({"end": "2027-01-06T00:00:00+03:00"}, 400),
    ],
)
def test_learning_source_refuses_invalid_requests(
    server: DemoServer, query: dict[str, str], status: int
) -> None:
    assert ask(server, **query)[0] == status
