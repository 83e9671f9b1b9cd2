"""States of a catalog: retry, cancel, sub-catalogs, and immediate failures."""

import pytest
from sqlalchemy import Engine

from catlog_scrapy.exceptions import NotFound, NotPossible
from catlog_scrapy.store.publishing import publish as publishing
from catlog_scrapy.store.queue import attempts, catalogs, starting
from catlog_scrapy.store.queue.claims import claim
from catlog_scrapy.store.queue.leases import heartbeat
from tests.support.factories import (
    an_operation,
    claim_all,
    claim_of,
    current,
    deliver,
    given_a_catalog,
    given_a_loaded_catalog,
    given_a_scheme,
    given_a_waiting_catalog,
    instances_of,
    load,
    sql,
    state_of,
    states_of,
    the_attempt,
    the_catalog,
)

PARTS = ["north", "south"]


def test_unknown_scheme_is_refused_with_the_known_ones(engine: Engine) -> None:
    given_a_scheme(engine)
    with pytest.raises(NotFound, match="there are: acme/goods"):
        catalogs.create(engine, "acme", "wares")
    with pytest.raises(NotFound, match="it has goods"):
        catalogs.create(engine, "acme", "goods", operation="prices")
    with pytest.raises(NotFound, match="no catalog"):
        catalogs.cancel(engine, given_a_scheme(engine, version=2))


def test_a_catalog_starts_once(engine: Engine) -> None:
    given_a_scheme(engine)
    catalog = catalogs.create(engine, "acme", "goods")
    assert starting.start_waiting(engine) == 1
    assert not starting.start(engine, catalog)
    assert states_of(engine, catalog) == ["new"]


def test_catalog_without_parts_fails(engine: Engine) -> None:
    given_a_scheme(engine, an_operation(kinds=[], for_each="links"))
    catalog = given_a_catalog(engine)
    failed = the_catalog(engine, catalog)
    assert failed["state"] == "failed"
    assert "there are none" in failed["error"]


def test_plan_creates_no_catalog(engine: Engine) -> None:
    given_a_scheme(engine, an_operation(for_each=PARTS))
    planned = starting.plan(engine, "acme", "goods", None, {})
    assert [each["part"] for each in planned] == PARTS
    assert sql(engine, "SELECT 1 FROM catlog.catalog") == []


# Retry


def test_retry_loads_unfinished_instances_and_keeps_done_instances(engine: Engine) -> None:
    given_a_scheme(engine, an_operation(for_each=PARTS), max_errors=1)
    catalog = given_a_catalog(engine)
    north, south = claim_all(engine, catalog)
    deliver(engine, north, {"a": 1})
    attempts.fail(engine, south.attempt, "it broke")
    assert state_of(engine, catalog) == "failed"
    catalogs.retry(engine, catalog)
    again = the_catalog(engine, catalog)
    assert (again["state"], again["errors"], again["error"]) == ("loading", 0, None)
    assert states_of(engine, catalog) == ["done", "new"]
    found = claim_of(engine, catalog)
    assert found.attempt == (south.attempt.instance, 2)
    deliver(engine, found, {"b": 1})
    assert publishing.publish_next(engine) == catalog
    assert current(engine) == {"a": 1, "b": 1}


def test_retry_of_a_cancelled_catalog_fences_off_running_attempts(engine: Engine) -> None:
    given_a_scheme(engine)
    catalog = given_a_catalog(engine)
    running = claim_of(engine, catalog)
    catalogs.cancel(engine, catalog)
    catalogs.retry(engine, catalog)
    assert the_attempt(engine, running.attempt)["outcome"] == "cancelled"
    assert heartbeat(engine, [running.attempt]) == {running.attempt: "lost"}
    newer = claim_of(engine, catalog)
    assert newer.attempt.number == 2
    assert deliver(engine, running, {"a": "old"}) == "cancelled"
    assert deliver(engine, newer, {"a": "new"}) == "done"


def test_retry_of_an_unstarted_catalog_starts_it(engine: Engine) -> None:
    given_a_scheme(engine)
    catalog = given_a_waiting_catalog(engine)
    catalogs.cancel(engine, catalog)
    catalogs.retry(engine, catalog)
    assert state_of(engine, catalog) == "waiting"
    assert starting.start_waiting(engine) == 1
    assert states_of(engine, catalog) == ["new"]


def test_retry_of_an_empty_catalog_expands_its_parts_again(engine: Engine) -> None:
    given_a_scheme(engine, an_operation("links"), name="links")
    given_a_scheme(engine, an_operation(for_each="links"))
    catalog = given_a_catalog(engine)
    assert state_of(engine, catalog) == "failed"
    load(engine, {"a": 1}, scheme="links")
    catalogs.retry(engine, catalog)
    starting.start_waiting(engine)
    assert [each["part"] for each in instances_of(engine, catalog)] == ["a"]


def test_retry_of_a_refused_publish_does_not_crawl_again(engine: Engine) -> None:
    given_a_scheme(engine)
    load(engine, {"a": 1, "b": 1, "c": 1})
    catalog = given_a_loaded_catalog(engine, {"d": 1})
    assert publishing.publish_next(engine) == catalog
    assert state_of(engine, catalog) == "failed"
    sql(engine, """UPDATE catlog.catalog_scheme_operation SET tolerate = '{"removed": 99}'""")
    catalogs.retry(engine, catalog)
    assert claim(engine, "node") == []
    assert publishing.publish_next(engine) == catalog
    assert current(engine) == {"d": 1}


def test_loading_or_loaded_catalog_cannot_be_retried(engine: Engine) -> None:
    given_a_scheme(engine)
    with pytest.raises(NotPossible, match="is loading"):
        catalogs.retry(engine, given_a_catalog(engine))
    with pytest.raises(NotPossible, match="is loaded"):
        catalogs.retry(engine, load(engine, {"a": 1})["id"])


def test_purged_catalog_cannot_be_retried(engine: Engine) -> None:
    given_a_scheme(engine)
    catalog = given_a_catalog(engine)
    catalogs.cancel(engine, catalog)
    sql(engine, "UPDATE catlog.catalog SET purged_at = now()")
    with pytest.raises(NotPossible, match="was purged"):
        catalogs.retry(engine, catalog)


def test_cancelled_catalog_cannot_be_cancelled_again(engine: Engine) -> None:
    given_a_scheme(engine)
    catalog = given_a_catalog(engine)
    catalogs.cancel(engine, catalog)
    cancelled = the_catalog(engine, catalog)
    assert (cancelled["state"], cancelled["error"]) == ("cancelled", "cancelled by request")
    with pytest.raises(NotPossible, match="is cancelled"):
        catalogs.cancel(engine, catalog)


def test_catalog_that_waits_for_publishing_can_be_cancelled(engine: Engine) -> None:
    given_a_scheme(engine)
    catalog = given_a_loaded_catalog(engine, {"a": 1})
    catalogs.cancel(engine, catalog)
    assert publishing.publish_next(engine) is None
    assert current(engine) == {}
    catalogs.retry(engine, catalog)
    assert publishing.publish_next(engine) == catalog
    assert current(engine) == {"a": 1}


# One bad catalog must not keep a scheduler from starting the others.


UNFILLABLE = [
    "{due_at:%Y} {other}",
    "{due_at",
    "{due_at.x}",
    "{due_at!z}",
    "{due_at.fold:c}",
    "{due_at.year:>300000000}",
    "{due_at:%Y{due_at.fold:c}}",
    "{due_at:" + 10_000 * "%c" + "}",
]


@pytest.mark.parametrize("argument", UNFILLABLE, ids=range(len(UNFILLABLE)))
def test_argument_that_cannot_be_rendered_fails_only_its_catalog(
    engine: Engine, argument: str
) -> None:
    """Only a stored catalog can have such an argument: a new catalog is refused."""
    given_a_scheme(engine)
    with pytest.raises(NotPossible, match=r"the argument day = .* cannot be rendered"):
        catalogs.create(engine, "acme", "goods", arguments={"day": argument})
    bad = given_a_waiting_catalog(engine, arguments={"day": argument})
    good = catalogs.create(engine, "acme", "goods")
    assert starting.start_waiting(engine) == 2
    assert state_of(engine, good) == "loading"
    failed = the_catalog(engine, bad)
    assert failed["state"] == "failed"
    assert "day" in failed["error"]


def test_start_refused_by_the_database_fails_only_its_catalog(engine: Engine) -> None:
    """The other catalogs start, and a lock only delays a catalog."""
    given_a_scheme(engine)
    bad = given_a_waiting_catalog(engine, arguments={"day": "bad"})
    slow = given_a_waiting_catalog(engine, arguments={"day": "slow"})
    good = given_a_waiting_catalog(engine)
    sql(
        engine,
        """CREATE FUNCTION catlog.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               RAISE EXCEPTION 'no such day' USING ERRCODE =
                   CASE new.arguments->>'day' WHEN 'bad' THEN '54000' ELSE '55P03' END;
           END $$""",
    )
    sql(
        engine,
        """CREATE TRIGGER refuse BEFORE INSERT ON catlog.catalog_scheme_operation_instance
           FOR EACH ROW WHEN (new.arguments ? 'day') EXECUTE FUNCTION catlog.refuse()""",
    )
    assert starting.start_waiting(engine) == 1
    assert state_of(engine, good) == "loading"
    assert state_of(engine, slow) == "waiting"
    failed = the_catalog(engine, bad)
    assert (failed["state"], failed["error"]) == ("failed", "it could not start: no such day")


def test_record_without_the_argument_field_fails_its_catalog(engine: Engine) -> None:
    given_a_scheme(engine, an_operation("links"), name="links")
    load(engine, {"a": 1}, scheme="links")
    given_a_scheme(engine, an_operation(for_each="links", arguments={"url": "{url}"}))
    failed = the_catalog(engine, given_a_catalog(engine))
    assert failed["state"] == "failed"
    assert "url" in failed["error"]


# Sub-catalogs


def given_a_family(engine: Engine, *names: str) -> tuple[object, ...]:
    """Start a parent; return it and its sub-catalogs, ordered by scheme name."""
    for name in names:
        given_a_scheme(engine, an_operation(name), name=name, max_errors=1)
    given_a_scheme(engine, name="all", includes=names)
    parent = given_a_catalog(engine, scheme="all")
    starting.start_waiting(engine)
    children = sql(
        engine,
        """SELECT c.id FROM catlog.catalog c JOIN catlog.catalog_scheme s ON s.id = c.scheme_id
           WHERE c.parent_id = :parent ORDER BY s.name""",
        parent=parent,
    )
    return parent, *[child["id"] for child in children]


def finish(engine: Engine, catalog: object) -> None:
    deliver(engine, claim_of(engine, catalog), {"a": 1})
    assert publishing.publish(engine, catalog)


def test_parent_is_loaded_when_all_children_are_loaded(engine: Engine) -> None:
    parent, goods, prices = given_a_family(engine, "goods", "prices")
    finish(engine, goods)
    assert current(engine, "goods") == {"a": 1}
    assert state_of(engine, parent) == "loading"
    finish(engine, prices)
    assert state_of(engine, parent) == "loaded"
    assert the_catalog(engine, parent)["finished_at"]


def test_parent_with_a_failed_child_fails_at_the_end_of_its_last_child(engine: Engine) -> None:
    parent, goods, prices = given_a_family(engine, "goods", "prices")
    attempts.fail(engine, claim_of(engine, goods).attempt, "it broke")
    assert state_of(engine, parent) == "loading"
    finish(engine, prices)
    failed = the_catalog(engine, parent)
    assert (failed["state"], failed["error"]) == ("failed", "a sub-catalog did not load")


def test_retry_of_a_parent_retries_its_failed_children(engine: Engine) -> None:
    parent, goods, prices = given_a_family(engine, "goods", "prices")
    attempts.fail(engine, claim_of(engine, goods).attempt, "it broke")
    finish(engine, prices)
    catalogs.retry(engine, parent)
    assert [state_of(engine, each) for each in (parent, goods, prices)] == [
        "loading",
        "loading",
        "loaded",
    ]
    finish(engine, goods)
    assert state_of(engine, parent) == "loaded"


def test_a_retry_of_a_child_reopens_its_parent(engine: Engine) -> None:
    parent, goods, prices = given_a_family(engine, "goods", "prices")
    attempts.fail(engine, claim_of(engine, goods).attempt, "it broke")
    finish(engine, prices)
    catalogs.retry(engine, goods)
    assert state_of(engine, parent) == "loading"
    finish(engine, goods)
    assert state_of(engine, parent) == "loaded"


def test_cancelling_a_parent_cancels_its_open_children(engine: Engine) -> None:
    parent, goods, prices = given_a_family(engine, "goods", "prices")
    finish(engine, goods)
    catalogs.cancel(engine, parent)
    assert [state_of(engine, each) for each in (parent, goods, prices)] == [
        "cancelled",
        "loaded",
        "cancelled",
    ]
    assert states_of(engine, prices) == ["cancelled"]


def test_retry_of_a_child_reopens_a_cancelled_parent(engine: Engine) -> None:
    parent, goods = given_a_family(engine, "goods")
    catalogs.cancel(engine, parent)
    catalogs.retry(engine, goods)
    assert state_of(engine, parent) == "loading"
    finish(engine, goods)
    assert state_of(engine, parent) == "loaded"


def test_a_cancelled_parent_can_be_retried(engine: Engine) -> None:
    parent, goods, prices = given_a_family(engine, "goods", "prices")
    catalogs.cancel(engine, parent)
    catalogs.retry(engine, parent)
    for each in (goods, prices):
        finish(engine, each)
    assert state_of(engine, parent) == "loaded"


def test_a_parent_with_a_purged_child_cannot_be_retried(engine: Engine) -> None:
    """Otherwise the parent would be loading for ever."""
    parent, goods = given_a_family(engine, "goods")
    catalogs.cancel(engine, parent)
    sql(engine, "UPDATE catlog.catalog SET purged_at = now() WHERE id = :id", id=goods)
    with pytest.raises(NotPossible, match="was purged"):
        catalogs.retry(engine, parent)
    assert state_of(engine, parent) == "cancelled"


def test_parent_with_a_retired_scheme_makes_no_children(engine: Engine) -> None:
    given_a_scheme(engine, an_operation("goods"), name="goods")
    given_a_scheme(engine, name="all", includes=["goods", "gone"])
    parent = given_a_catalog(engine, scheme="all")
    failed = the_catalog(engine, parent)
    assert failed["state"] == "failed"
    assert "gone" in failed["error"]
    assert sql(engine, "SELECT 1 FROM catlog.catalog WHERE parent_id IS NOT NULL") == []
