"""Reasons for which open catalogs wait, their first errors, and retries without a wait."""

import json
from http.client import HTTPConnection
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from catlog_scrapy.exceptions import NotFound, NotPossible
from catlog_scrapy.store.access.keys import add_key
from catlog_scrapy.store.publishing import publish as publishing
from catlog_scrapy.store.queue import attempts, catalogs, nodes, starting
from catlog_scrapy.store.queue.claims import Claim, claim
from catlog_scrapy.store.reading.status import attempts_of, find_catalog, latest_catalogs
from catlog_scrapy.store.reading.waiting import next_attempts, waiting_work
from tests.support.executor import application, serving
from tests.support.factories import (
    an_operation,
    claim_of,
    given_a_catalog,
    given_a_loaded_catalog,
    given_a_provider,
    given_a_scheme,
    given_a_waiting_catalog,
    load,
    sql,
    state_of,
    the_catalog,
)
from tests.support.waiting import WAIT_LIMIT_S


def given_a_node(
    engine: Engine, name: str = "one:1", *, slots: int = 2, running: int = 0, **more: Any
) -> None:
    nodes.register(
        engine, name, url="http://one", pid=1, version="0", slots=slots, poll=1.0, **more
    )
    nodes.record_poll(engine, name, running=running, projects={})


def waits(engine: Engine, catalog: UUID) -> str | None:
    """Return why a catalog waits, which the list of catalogs says too."""
    found = find_catalog(engine, str(catalog))["waits"]
    assert {c["id"]: c["waits"] for c in latest_catalogs(engine)}[catalog] == found
    return found  # type: ignore[no-any-return]


def fail(engine: Engine, claimed: Claim, error: str = "no answer") -> None:
    assert attempts.fail(engine, claimed.attempt, error) == "failed"


def test_instance_waits_for_a_provider_that_runs_as_many_as_it_may(engine: Engine) -> None:
    given_a_provider(engine, "tatneft", max_running=2)
    given_a_scheme(engine, an_operation(for_each=["a", "b", "c"]), provider="tatneft")
    catalog = given_a_catalog(engine, provider="tatneft")
    assert waits(engine, catalog) is None
    held = claim(engine, "node", limit=3)
    assert waits(engine, catalog) == "2 of 2 running for tatneft"
    assert [a["waits"] for a in attempts_of(engine, catalog)] == [
        None,
        None,
        "2 of 2 running for tatneft",
    ]
    attempts.release(engine, held[0].attempt)
    assert waits(engine, catalog) is None


def test_slots_of_a_cancelled_crawl_count_until_it_has_stopped(engine: Engine) -> None:
    given_a_provider(engine, max_running=1)
    given_a_scheme(engine)
    held = claim_of(engine, given_a_catalog(engine))
    later = given_a_catalog(engine)
    catalogs.cancel(engine, held.catalog)
    assert waits(engine, later) == "1 of 1 running for acme"
    attempts.fail(engine, held.attempt, "stopped", outcome="cancelled")
    assert waits(engine, later) is None


def test_instance_waits_for_a_node_with_its_tags(engine: Engine) -> None:
    given_a_scheme(engine, an_operation(tags=["browser", "ru"]))
    catalog = given_a_catalog(engine)
    assert waits(engine, catalog) == "no node has the tags browser, ru"
    given_a_node(engine, "one:1", tags=["browser"])
    assert waits(engine, catalog) == "no node has the tags browser, ru"
    given_a_node(engine, "two:1", tags=["browser", "gpu", "ru"])
    assert waits(engine, catalog) is None


@pytest.mark.parametrize(
    "lost",
    [
        "state = 'stopped'",
        "state = 'draining'",
        "polled_at = clock_timestamp() - interval '1 minute'",
    ],
)
def test_nodes_that_take_nothing_do_not_count(engine: Engine, lost: str) -> None:
    given_a_scheme(engine, an_operation(tags=["browser"]))
    catalog = given_a_catalog(engine)
    given_a_node(engine, tags=["browser"])
    assert waits(engine, catalog) is None
    sql(engine, f"UPDATE catlog.node SET {lost}")
    assert waits(engine, catalog) == "no node has the tags browser"


def test_instance_waits_for_a_free_slot(engine: Engine) -> None:
    given_a_scheme(engine)
    catalog = given_a_catalog(engine)
    given_a_node(engine, "one:1", slots=2, running=2)
    assert waits(engine, catalog) == "2 of 2 slots taken on the node"
    given_a_node(engine, "two:1", slots=3, running=3, tags=["browser"])
    assert waits(engine, catalog) == "5 of 5 slots taken on 2 nodes"
    given_a_scheme(engine, an_operation(tags=["browser"]), provider="shop")
    tagged = given_a_catalog(engine, provider="shop")
    assert waits(engine, tagged) == "3 of 3 slots taken on the node with the tags browser"
    given_a_node(engine, "two:1", slots=3, running=2, tags=["browser"])
    assert waits(engine, catalog) is None
    assert waits(engine, tagged) is None


def test_external_operation_waits_for_an_executor_and_not_for_nodes(engine: Engine) -> None:
    given_a_node(engine, slots=1, running=1)
    given_a_scheme(
        engine,
        an_operation("outside", executor="external"),
        name="outside",
    )
    catalog = given_a_catalog(engine, scheme="outside")
    assert waits(engine, catalog) == "an external executor must claim it"
    given_a_scheme(engine, an_operation("gpu", executor="external", tags=["gpu"]), name="gpu")
    catalog = given_a_catalog(engine, scheme="gpu")
    assert waits(engine, catalog) == "an external executor must claim it, with the tags gpu"


def test_failed_instance_waits_for_its_next_attempt(engine: Engine) -> None:
    given_a_scheme(engine, an_operation(backoff_base=1000.0, backoff_cap=1000.0))
    catalog = given_a_catalog(engine)
    held = claim_of(engine, catalog)
    fail(engine, held)
    [line] = next_attempts(engine, [held.attempt.instance])
    seconds = line.removeprefix("acme/goods/goods: next attempt in ").removesuffix(" s (2 of 5)")
    assert 0 < int(seconds) <= 1200  # with jitter
    assert str(waits(engine, catalog)).startswith("next attempt in ")
    [attempt] = attempts_of(engine, catalog)
    assert attempt["waits"].endswith(" s (2 of 5)")


def test_attempts_of_all_parts_count_together(engine: Engine) -> None:
    given_a_scheme(engine, an_operation(for_each=["a", "b"], backoff_base=1000.0), max_errors=3)
    catalog = given_a_catalog(engine)
    first, second = claim(engine, "node", limit=2)
    fail(engine, first)
    fail(engine, second)
    lines = next_attempts(engine, [first.attempt.instance, second.attempt.instance])
    assert {line.partition(":")[0] for line in lines} == {
        "acme/goods/goods a",
        "acme/goods/goods b",
    }
    assert all(line.endswith("(3 of 3)") for line in lines)
    assert state_of(engine, catalog) == "loading"


def test_catalog_waits_for_the_scheme_before_it_and_for_its_next_publish(engine: Engine) -> None:
    given_a_scheme(engine)
    given_a_waiting_catalog(engine)
    given_a_scheme(engine, an_operation("later"), name="later", after="goods")
    later = given_a_waiting_catalog(engine, scheme="later")
    assert waits(engine, later) == "goods is loaded first"
    catalog = given_a_loaded_catalog(engine, {"a": 1})
    assert waits(engine, catalog) is None
    sql(
        engine,
        """UPDATE catlog.catalog SET publish_at = clock_timestamp() + interval '9 s'
           WHERE id = :id""",
        id=catalog,
    )
    assert str(waits(engine, catalog)).startswith("next try to publish in ")


@pytest.mark.parametrize("state", ["done", "failed", "cancelled"])
def test_ended_catalogs_wait_for_nothing(engine: Engine, state: str) -> None:
    given_a_node(engine, slots=1, running=1)
    given_a_scheme(engine, an_operation(), max_errors=1)
    catalog = given_a_catalog(engine)
    if state == "done":
        catalog = load(engine, {"a": 1})["id"]
    elif state == "failed":
        fail(engine, claim_of(engine, catalog))
    else:
        catalogs.cancel(engine, catalog)
    assert waits(engine, catalog) is None


def test_waiting_work_is_counted_by_provider_and_tags(engine: Engine) -> None:
    given_a_provider(engine, "tatneft", max_running=1)
    given_a_scheme(
        engine,
        an_operation("plain", for_each=["a", "b", "c"]),
        an_operation("shown", tags=["browser"]),
        provider="tatneft",
    )
    given_a_catalog(engine, provider="tatneft")
    claim(engine, "node")
    assert [
        (w["provider"], w["tags"], w["instances"], w["reason"]) for w in waiting_work(engine)
    ] == [
        ("tatneft", [], 2, "1 of 1 running for tatneft"),
        ("tatneft", ["browser"], 1, "1 of 1 running for tatneft"),
    ]


def test_first_error_is_kept_beside_the_last(engine: Engine) -> None:
    given_a_scheme(engine, max_errors=3)
    catalog = given_a_catalog(engine)
    fail(engine, claim_of(engine, catalog), "the log-in was refused")
    assert the_catalog(engine, catalog)["first_error"] == "the log-in was refused"
    assert the_catalog(engine, catalog)["error"] is None
    fail(engine, claim_of(engine, catalog), "a page was empty")
    fail(engine, claim_of(engine, catalog), "no answer")
    found = the_catalog(engine, catalog)
    assert found["first_error"] == "the log-in was refused"
    assert found["error"] == (
        "3 attempts failed; first error: the log-in was refused; last error: no answer"
    )
    catalogs.retry(engine, catalog)
    assert the_catalog(engine, catalog)["first_error"] is None
    fail(engine, claim_of(engine, catalog), "no answer")
    assert the_catalog(engine, catalog)["first_error"] == "no answer"


def test_error_that_repeats_is_written_once(engine: Engine) -> None:
    given_a_scheme(engine, max_errors=2)
    catalog = given_a_catalog(engine)
    for _ in range(2):
        fail(engine, claim_of(engine, catalog), "no answer")
    assert the_catalog(engine, catalog)["error"] == "2 attempts failed; last error: no answer"


@pytest.mark.parametrize("outcome", ["lost", "timed_out", "incomplete"])
def test_first_error_may_be_that_of_a_lost_attempt(engine: Engine, outcome: str) -> None:
    given_a_scheme(engine)
    catalog = given_a_catalog(engine)
    attempts.fail(engine, claim_of(engine, catalog).attempt, "first", outcome=outcome)
    fail(engine, claim_of(engine, catalog), "second")
    assert the_catalog(engine, catalog)["first_error"] == "first"


def test_first_error_of_publishing_is_kept(engine: Engine) -> None:
    given_a_scheme(engine)
    catalog = given_a_loaded_catalog(engine, {"a": 1})
    table = 'records."goods"'
    for number, renamed in enumerate(("x", "y"), 1):
        sql(engine, f"ALTER TABLE {table} RENAME COLUMN value TO {renamed}")
        with pytest.raises(DBAPIError):
            publishing.publish(engine, catalog)
        sql(engine, f"ALTER TABLE {table} RENAME COLUMN {renamed} TO value")
        found = the_catalog(engine, catalog)
        assert found["publish_failures"] == number
        if number == 1:
            sql(engine, "UPDATE catlog.catalog SET first_error = 'the disk is full'")
    assert found["first_error"] == "the disk is full"
    assert found["error"].startswith("publishing failed and will be tried again: ")


def test_released_attempt_is_no_error(engine: Engine) -> None:
    given_a_scheme(engine)
    catalog = given_a_catalog(engine)
    attempts.release(engine, claim_of(engine, catalog).attempt)
    assert the_catalog(engine, catalog)["first_error"] is None


def given_a_backoff(engine: Engine) -> UUID:
    """Return a catalog of two parts, one of which waits for hours."""
    given_a_scheme(engine, an_operation(for_each=["a", "b"], backoff_base=9000.0))
    catalog = given_a_catalog(engine)
    fail(engine, claim(engine, "node")[0])
    return catalog


def test_retry_now_ends_the_wait_for_the_next_attempt(engine: Engine) -> None:
    catalog = given_a_backoff(engine)
    assert [c.part for c in claim(engine, "node", limit=2)] == ["b"]
    with pytest.raises(NotPossible, match="is loading; only a failed or cancelled"):
        catalogs.retry(engine, catalog)
    catalogs.retry_now(engine, catalog)
    assert [c.part for c in claim(engine, "node", limit=2)] == ["a"]
    assert the_catalog(engine, catalog)["errors"] == 1
    with pytest.raises(NotPossible, match="nothing in it waits for its next attempt"):
        catalogs.retry_now(engine, catalog)


def test_retry_now_of_a_failed_catalog_is_a_retry(engine: Engine) -> None:
    given_a_scheme(engine, max_errors=1)
    catalog = given_a_catalog(engine)
    fail(engine, claim_of(engine, catalog))
    catalogs.retry_now(engine, catalog)
    assert claim_of(engine, catalog).attempt.number == 2


def test_retry_now_reaches_sub_catalogs(engine: Engine) -> None:
    given_a_scheme(engine, an_operation(backoff_base=9000.0))
    given_a_scheme(engine, name="all", includes=["goods"])
    parent = given_a_catalog(engine, scheme="all")
    [child] = sql(engine, "SELECT id FROM catlog.catalog WHERE parent_id = :id", id=parent)
    starting.start_waiting(engine)
    fail(engine, claim_of(engine, child["id"]))
    assert claim(engine, "node") == []
    catalogs.retry_now(engine, parent)
    assert len(claim(engine, "node")) == 1


def test_retry_now_publishes_again_at_once(engine: Engine) -> None:
    given_a_scheme(engine)
    catalog = given_a_loaded_catalog(engine, {"a": 1})
    sql(engine, "UPDATE catlog.catalog SET publish_at = clock_timestamp() + interval '1 hour'")
    assert publishing.publish_next(engine) is None
    catalogs.retry_now(engine, catalog)
    assert publishing.publish_next(engine) == catalog


@pytest.mark.parametrize("state", ["waiting", "loaded"])
def test_retry_now_is_refused_where_nothing_waits(engine: Engine, state: str) -> None:
    given_a_scheme(engine)
    is_waiting = state == "waiting"
    catalog = given_a_waiting_catalog(engine) if is_waiting else load(engine, {"a": 1})["id"]
    with pytest.raises(NotPossible, match=f"is {state}, and nothing in it waits"):
        catalogs.retry_now(engine, catalog)


def test_list_of_catalogs_is_restricted_to_a_provider_or_scheme(engine: Engine) -> None:
    given_a_scheme(engine)
    given_a_scheme(engine, an_operation("links"), name="links")
    given_a_scheme(engine, provider="shop")
    goods, links = given_a_catalog(engine), given_a_catalog(engine, scheme="links")
    shop = given_a_catalog(engine, provider="shop")

    def ids(**given: Any) -> list[UUID]:
        return [catalog["id"] for catalog in latest_catalogs(engine, **given)]

    assert ids() == [shop, links, goods]
    assert ids(provider="acme") == [links, goods]
    assert ids(provider="acme", scheme="goods") == [goods]
    assert ids(provider="acme", failed=True) == []
    with pytest.raises(NotFound, match="no provider 'nobody'; there are: acme, shop"):
        latest_catalogs(engine, provider="nobody")
    with pytest.raises(NotFound, match="acme has no scheme 'nothing'; it has goods, links"):
        latest_catalogs(engine, provider="acme", scheme="nothing")


def test_duration_of_a_catalog_ends_with_it(engine: Engine) -> None:
    given_a_scheme(engine)
    waiting = given_a_waiting_catalog(engine)
    assert find_catalog(engine, str(waiting))["seconds"] is None
    loaded = load(engine, {"a": 1})["id"]
    first = find_catalog(engine, str(loaded))["seconds"]
    assert 0 < first == find_catalog(engine, str(loaded))["seconds"]


def request(port: int, key: str, path: str, method: str = "GET") -> tuple[int, Any]:
    connection = HTTPConnection("127.0.0.1", port, timeout=WAIT_LIMIT_S)
    try:
        connection.request(method, f"/api/v1/{path}", headers={"Authorization": f"Bearer {key}"})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def test_api_says_what_waits_and_retries_now(engine: Engine) -> None:
    given_a_provider(engine, "tatneft", max_running=1)
    given_a_scheme(
        engine,
        an_operation(for_each=["a", "b"], backoff_base=9000.0, tags=["x"]),
        provider="tatneft",
    )
    catalog = given_a_catalog(engine, provider="tatneft")
    [held] = claim(engine, "node", tags=["x"])
    with serving(application(engine)) as port:
        key = add_key(engine, "boss", "admin")

        def rows_of(path: str) -> list[dict[str, Any]]:
            status, body = request(port, key, path)
            assert status == 200, body
            return body["results"]  # type: ignore[no-any-return]

        reason = "1 of 1 running for tatneft"
        assert [row["waits"] for row in rows_of("catalogs")] == [reason]
        instances = rows_of("catalog_scheme_operation_instances")
        assert {row["part"]: row["waits"] for row in instances} == {"a": None, "b": reason}
        [provider] = rows_of("providers")
        assert (provider["running"], provider["max_running"]) == (1, 1)
        assert [row["tags"] for row in rows_of("catalog_scheme_operations")] == [["x"]]
        fail(engine, held, "the log-in was refused")
        [row] = [r for r in rows_of("catalog_scheme_operation_instances") if r["part"] == "a"]
        assert row["first_error"] == row["error"] == "the log-in was refused"
        assert row["waits"].startswith("next attempt in ")
        assert rows_of("catalogs")[0]["first_error"] == "the log-in was refused"
        status, body = request(port, key, f"catalogs/{catalog}/retry", "POST")
        assert (status, "only a failed or cancelled" in body["detail"]) == (409, True)
        retry_now = f"catalogs/{catalog}/retry?now=true"
        assert request(port, key, retry_now, "POST") == (
            200,
            {"id": str(catalog), "state": "loading"},
        )
        assert request(port, key, retry_now, "POST")[0] == 409
        assert [c.part for c in claim(engine, "node", tags=["x"])] == ["a"]
