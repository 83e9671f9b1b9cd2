"""Tags: a worker claims only the operations all of whose tags it has."""

from typing import Any

import pytest
from sqlalchemy import Engine

from catlog_scrapy.store import schemes
from catlog_scrapy.store.access.keys import add_key
from catlog_scrapy.store.queue import attempts, catalogs, claim_hints, nodes
from catlog_scrapy.store.queue.claim_hints import claim_hints_of
from catlog_scrapy.store.queue.claims import Claim, claim
from catlog_scrapy.store.reading.status import has_open_work
from catlog_scrapy.store.reading.waiting import unclaimable_operations
from tests.support.executor import Client, application, serving
from tests.support.factories import (
    an_operation,
    given_a_catalog,
    given_a_provider,
    given_a_scheme,
    given_a_waiting_catalog,
    one,
    sql,
)
from tests.support.waiting import until

BROWSER, RUSSIAN = ["browser"], ["browser", "ru"]


def given_operations(engine: Engine, **tags: list[str]) -> None:
    """Insert a scheme of one operation for each name and its tags, and a catalog of it."""
    given_a_scheme(engine, *(an_operation(name, tags=of) for name, of in tags.items()))
    given_a_catalog(engine)


def operations(claims: list[Claim]) -> list[str]:
    return sorted(each.operation for each in claims)


@pytest.mark.parametrize(
    ("tags", "claimed"),
    [
        ([], ["plain"]),
        (["browser"], ["browser", "plain"]),
        (["ru"], ["plain"]),
        (["ru", "browser"], ["both", "browser", "plain"]),
        (["ru", "browser", "gpu"], ["both", "browser", "plain"]),
        (["Browser"], ["plain"]),
    ],
)
def test_worker_claims_operations_whose_tags_it_has(
    engine: Engine, tags: list[str], claimed: list[str]
) -> None:
    given_operations(engine, plain=[], browser=["browser"], both=["browser", "ru"])
    assert operations(claim(engine, "node", limit=10, tags=tags)) == claimed
    assert claim(engine, "node", limit=10, tags=tags) == []


def test_claims_of_one_catalog_respect_tags(engine: Engine) -> None:
    given_a_scheme(engine, an_operation(tags=["browser"]))
    catalog = given_a_catalog(engine)
    assert claim(engine, "node", catalogs=[catalog]) == []
    assert len(claim(engine, "node", catalogs=[catalog], tags=["browser"])) == 1


def test_released_and_retried_instances_keep_their_tags(engine: Engine) -> None:
    given_a_scheme(engine, an_operation(tags=["browser"]))
    given_a_catalog(engine)
    [held] = claim(engine, "node", tags=["browser"])
    attempts.release(engine, held.attempt)
    assert claim(engine, "node") == []
    [held] = claim(engine, "node", tags=["browser"])
    catalogs.cancel(engine, held.catalog)
    catalogs.retry(engine, held.catalog)
    assert claim(engine, "node") == []
    assert len(claim(engine, "node", tags=["browser"])) == 1


def test_provider_whose_work_has_other_tags_does_not_starve_the_next_provider(
    engine: Engine,
) -> None:
    given_a_provider(engine, "tagged", max_running=1)
    given_a_scheme(engine, an_operation(tags=["browser"]), provider="tagged")
    given_a_catalog(engine, provider="tagged", priority=9)
    given_a_scheme(engine, provider="plain")
    given_a_catalog(engine, provider="plain")
    assert [each.provider for each in claim(engine, "node")] == ["plain"]


@pytest.fixture
def search_before_each_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim_hints, "CLAIMS_PER_SEARCH", 1)


def search_until_behind(engine: Engine, position: int) -> None:
    hints = claim_hints_of(engine)

    def is_behind() -> bool:
        hints.refresh(engine)
        return max((head.position for head in hints.heads.values()), default=0) > position

    until(is_behind)


def given_a_passed_instance(engine: Engine) -> None:
    """Let an untagged worker's head of the queue pass an instance with tags."""
    given_a_scheme(engine, an_operation(tags=["browser"]))
    given_a_catalog(engine)
    position = one(engine, "SELECT position FROM catlog.catalog_scheme_operation_instance")
    # The head passes positions that were given out before: another one has to come.
    given_a_scheme(engine, an_operation(), provider="other")
    given_a_catalog(engine, provider="other")
    assert [each.provider for each in claim(engine, "node")] == ["other"]
    search_until_behind(engine, position)
    assert claim(engine, "node") == []


@pytest.mark.usefixtures("search_before_each_claim")
def test_worker_with_tags_finds_what_other_workers_have_passed(engine: Engine) -> None:
    given_a_passed_instance(engine)
    assert len(claim(engine, "node", tags=["browser"])) == 1


@pytest.mark.usefixtures("search_before_each_claim")
def test_operation_that_loses_its_tags_is_found_by_workers_that_have_passed_it(
    engine: Engine,
) -> None:
    given_a_passed_instance(engine)
    change_tags(engine, [])
    assert len(claim(engine, "node")) == 1


@pytest.mark.usefixtures("search_before_each_claim")
def test_heads_are_searched_again_after_changed_tags(engine: Engine) -> None:
    given_a_passed_instance(engine)
    change_tags(engine, ["other"])
    given_a_catalog(engine)
    last = one(engine, "SELECT max(position) FROM catlog.catalog_scheme_operation_instance")
    given_a_catalog(engine, provider="other")
    claim(engine, "node")
    search_until_behind(engine, last)
    assert len(claim(engine, "node", limit=3, tags=["other"])) == 2


def change_tags(engine: Engine, tags: list[str]) -> None:
    """Change the tags of acme's operation as `scrapy apply` does."""
    with engine.begin() as connection:
        [acme] = [p for p in schemes.stored_providers(connection) if p.name == "acme"]
        acme.schemes[0].operations[0].tags[:] = tags
        schemes.write_provider(connection, acme)


def test_worker_that_drains_leaves_the_work_of_other_tags(engine: Engine) -> None:
    given_operations(engine, browser=["browser"])
    assert not has_open_work(engine)
    assert not has_open_work(engine, tags=["ru"])
    assert has_open_work(engine, tags=["browser", "ru"])


def test_load_says_which_tags_its_process_lacks(engine: Engine) -> None:
    given_a_scheme(engine, an_operation("plain"), an_operation("both", tags=RUSSIAN), name="goods")
    catalog = given_a_catalog(engine)
    assert unclaimable_operations(engine, [catalog], RUSSIAN) == []
    [line] = unclaimable_operations(engine, [catalog], BROWSER)
    assert line == (
        "acme/goods/both: waits for a worker with the tags browser, ru; start one, or run this"
        " command with -s CATLOG_TAGS=browser,ru"
    )


def test_external_executor_claims_operations_whose_tags_it_declares(engine: Engine) -> None:
    given_a_scheme(engine, an_operation(executor="external", tags=["gpu"]))
    given_a_waiting_catalog(engine)
    with serving(application(engine)) as port:
        robot = Client(port, add_key(engine, "robot", "service"))
        until(lambda: sql(engine, "SELECT 1 FROM catlog.catalog_scheme_operation_instance"))
        assert robot.claim() == []
        assert robot.claim(tags=["cpu", "more"]) == []
        [claimed] = robot.claim(tags=["cpu", "gpu"])
        assert claimed["operation"] == "goods"
        for wrong in (["a b"], "gpu", [""], ["x" * 101]):
            given: dict[str, Any] = {"operations": ["acme/goods"], "worker": "one", "tags": wrong}
            assert robot.ask("claim", given).status == 422, wrong


def test_node_is_registered_with_its_tags(engine: Engine) -> None:
    nodes.register(
        engine, "one:1", url="http://one", pid=1, version="0", slots=2, poll=1.0, tags=["browser"]
    )
    assert [node["tags"] for node in nodes.list_nodes(engine)] == [["browser"]]
