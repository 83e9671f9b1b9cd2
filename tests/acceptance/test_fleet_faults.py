"""Break a fleet in each way that has a name: all is loaded once or says why, nothing is left."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import Engine

from tests.fleet import Fleet, rows, things, until
from tests.source import Source


@pytest.fixture
def source() -> Iterator[Source]:
    with Source() as source:
        yield source


@pytest.fixture
def given_a_fleet(
    tmp_path: Path, engine: Engine, database_url: str, source: Source
) -> Iterator[Callable[..., Fleet]]:
    """Makes fleets, and ends what they leave."""
    made: list[Fleet] = []

    def make(**options: Any) -> Fleet:
        fleet = Fleet(tmp_path, engine, database_url, source, **options)
        made.append(fleet)
        return fleet.apply()

    yield make
    for fleet in made:
        fleet.__exit__()


GivenAFleet = Callable[..., Fleet]


def is_gone(process: psutil.Process) -> bool:
    """Whether a process has ended, reaped or not."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_node_killed_with_four_spiders_takes_them_along_and_goes_on_at_once(
    given_a_fleet: GivenAFleet,
) -> None:
    fleet = given_a_fleet(CATLOG_LEASE="60")
    node = fleet.node()
    hold = fleet.hold()
    fleet.load(hold=str(hold))
    until(lambda: fleet.running() == 4, what=fleet.report)
    spiders = node.spiders()
    assert len(spiders) == 4
    node.kill()
    assert until(lambda: all(map(is_gone, spiders)), 5) < 1
    hold.touch()
    node.start()
    fleet.ready(node)
    # Long before the lease ends.
    until(lambda: fleet.outcomes().count("lost") == 4, 5, fleet.report)
    assert set(fleet.errors()) == {f"lost: its node {node.name} went down"}
    fleet.is_sound(things(fleet.parts))


def test_what_a_killed_node_ran_goes_to_another_one_after_the_lease(
    given_a_fleet: GivenAFleet,
) -> None:
    fleet = given_a_fleet(CATLOG_LEASE="3")
    killed = fleet.node("killed")
    hold = fleet.hold()
    fleet.load(hold=str(hold))
    until(lambda: fleet.running() == 4, what=fleet.report)
    fleet.node("other")
    killed.kill()
    hold.touch()
    fleet.ends(20)
    assert set(fleet.errors()) == {f"lost: its worker on {killed.name} vanished"}
    fleet.is_sound(things(fleet.parts))


def test_a_killed_spider_is_lost_at_once(given_a_fleet: GivenAFleet) -> None:
    fleet = given_a_fleet(CATLOG_LEASE="60")
    node = fleet.node()
    hold = fleet.hold()
    fleet.load(hold=str(hold))
    until(lambda: fleet.running() == 4, what=fleet.report)
    node.spiders()[0].kill()
    assert until(fleet.outcomes) < 2
    assert fleet.errors() == ["lost: its process was killed by SIGKILL"]
    hold.touch()
    fleet.is_sound(things(fleet.parts))
    assert fleet.outcomes().count("lost") == 1


@pytest.mark.parametrize(
    ("trouble", "error"),
    [
        ("exits", "its process ended with exit status 3 before its spider was closed"),
        ("segfaults", "its process was killed by SIGSEGV"),
    ],
)
def test_a_spider_that_ends_its_own_process_has_failed(
    given_a_fleet: GivenAFleet, trouble: str, error: str
) -> None:
    fleet = given_a_fleet(CATLOG_LEASE="60")
    fleet.node()
    fleet.load(trouble=trouble)
    fleet.is_sound(things(fleet.parts))
    assert fleet.errors() == [f"failed: {error}"] * 4
    assert rows(fleet.engine, "SELECT max(errors) FROM catlog.catalog") == [(4,)]
