"""`tolerate.duplicates` limits the results of a load whose keys came before."""

from typing import Any

import pytest
from sqlalchemy import Engine

from catlog_scrapy.store.publishing import publish as publishing
from tests.support.factories import (
    an_operation,
    given_a_loaded_catalog,
    given_a_scheme,
    load,
    the_catalog,
)

ROWS = [("a", 1), ("b", 1), ("a", 2), ("c", 1)]


def published(engine: Engine, tolerate: dict[str, Any], rows: Any = ROWS) -> dict[str, Any]:
    given_a_scheme(engine, an_operation(tolerate=tolerate))
    catalog = given_a_loaded_catalog(engine, rows)
    assert publishing.publish(engine, catalog)
    return the_catalog(engine, catalog)


@pytest.mark.parametrize("tolerate", [{}, {"duplicates": 1}, {"duplicates": 0.25}])
def test_load_with_tolerated_duplicates_is_published(
    engine: Engine, tolerate: dict[str, Any]
) -> None:
    loaded = published(engine, tolerate)
    assert loaded["state"] == "loaded"
    assert loaded["published"]["duplicates"] == 1


@pytest.mark.parametrize("tolerate", [{"duplicates": 0}, {"duplicates": 0.2}])
def test_load_with_too_many_duplicates_fails(engine: Engine, tolerate: dict[str, Any]) -> None:
    failed = published(engine, tolerate)
    assert failed["state"] == "failed"
    tolerated = tolerate["duplicates"]
    assert failed["error"].startswith(
        "goods brought 1 of 4 results with a key that the load had already, tolerated"
        f" {tolerated}. Check that the key tells records apart"
    )


def test_duplicates_of_a_later_load_are_limited_too(engine: Engine) -> None:
    given_a_scheme(engine, an_operation(tolerate={"duplicates": 0}))
    load(engine, {"a": 1, "b": 1})
    catalog = given_a_loaded_catalog(engine, [("a", 1), ("a", 1), ("b", 1)])
    assert publishing.publish(engine, catalog)
    assert "1 of 3 results" in the_catalog(engine, catalog)["error"]


def test_load_without_duplicates_has_no_limit(engine: Engine) -> None:
    assert published(engine, {"duplicates": 0}, {"a": 1, "b": 2})["state"] == "loaded"
