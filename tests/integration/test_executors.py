"""External executors over real HTTP: nothing is lost, nothing is double, whoever comes late."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from tests.executing import Client, application, serving
from tests.factories import (
    an_operation,
    current,
    given_a_scheme,
    given_a_waiting_catalog,
    state_of,
)
from tests.looking import until


@pytest.fixture
def robot(engine: Engine) -> Iterator[Client]:
    with serving(application(engine)) as port:
        yield Client(port)


def given_goods(engine: Engine, **columns: object) -> None:
    given_a_scheme(engine, an_operation(executor="external", **columns))


def goods(*ids: object) -> list[dict[str, object]]:
    return [{"id": f"{id_}", "value": id_} for id_ in ids]


def test_with_a_server_alone_a_catalog_becomes_loaded(engine: Engine, robot: Client) -> None:
    given_goods(engine)
    catalog = given_a_waiting_catalog(engine)
    attempt = robot.claim_one()
    assert robot.send(attempt, 1, *goods(1, 2)).body == {
        "batch": 1,
        "accepted": 2,
        "rejected": 0,
        "rejections": [],
    }
    assert robot.send(attempt, 2, *goods(3)).status == 200
    assert robot.complete(attempt, 2).body == {"outcome": "done", "error": None}
    assert robot.complete(attempt, 2).body == {"outcome": "done", "error": None}
    until(lambda: state_of(engine, catalog) == "loaded")
    assert current(engine) == {"1": 1, "2": 2, "3": 3}
