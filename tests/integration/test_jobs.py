"""Jobs: the queue in the terms of scrapyd's API."""

import pytest
from sqlalchemy import Engine

from catlog_scrapy.exceptions import NotFound, NotPossible
from catlog_scrapy.store.queue import attempts, jobs, starting
from catlog_scrapy.store.queue.claims import claim
from catlog_scrapy.store.reading.status import find_catalog
from tests.support.factories import an_operation, at_once, given_a_scheme, one, sql


def given_a_job(engine: Engine, **options: object) -> str:
    values = {"arguments": {}, "settings": {}, **options}
    operation = jobs.operation_of(engine, "shop", "goods")
    made = jobs.schedule(engine, operation, **values)  # type: ignore[arg-type]
    starting.start_waiting(engine)
    return made


def test_job_is_pending_then_running_then_finished(engine: Engine) -> None:
    given_a_scheme(engine)
    job = given_a_job(engine, job="mine", arguments={"year": "2026"})
    assert jobs.state(engine, "shop", job) == ("pending", "loading")
    [waiting] = jobs.pending(engine, "shop")
    assert (waiting.job, waiting.arguments) == ("mine", {"year": "2026"})
    [held] = claim(engine, "node")
    assert jobs.count_pending(engine) == 0
    assert [found.job for found in jobs.running(engine)] == ["mine"]
    attempts.complete(engine, held.attempt, attempts.Report())
    assert jobs.state(engine, None, job) == ("running", "publishing")
    [ended] = jobs.ended(engine)
    assert (ended.job, ended.outcome) == ("mine", "done")
    assert find_catalog(engine, "mine")["job"] == "mine"


def test_job_with_a_setting_is_a_partial_load(engine: Engine) -> None:
    """A setting may leave records out, which a full load would remove."""
    given_a_scheme(engine)
    given_a_job(engine, settings={"DEPTH_LIMIT": "1"})
    assert one(engine, "SELECT is_full FROM catlog.catalog") is False


def test_job_id_is_unique(engine: Engine) -> None:
    given_a_scheme(engine)
    given_a_job(engine, job="mine")
    with pytest.raises(NotPossible, match="a job 'mine' exists already"):
        given_a_job(engine, job="mine")


def test_concurrent_jobs_with_one_id_are_made_once(engine: Engine) -> None:
    given_a_scheme(engine)

    def try_it() -> bool:
        try:
            given_a_job(engine, job="mine")
        except NotPossible:
            return False
        return True

    assert sorted(at_once(*[try_it] * 4)) == [False, False, False, True]


def test_operation_is_found_by_spider_scheme_or_path(engine: Engine) -> None:
    given_a_scheme(engine)
    given_a_scheme(engine, an_operation("second", spider="goods", kinds=["second"]), name="more")
    # Of several that run a spider, the one of that name.
    assert jobs.operation_of(engine, "shop", "goods").scheme == "goods"
    assert jobs.operation_of(engine, "shop", "acme/more").name == "second"
    assert jobs.operation_of(engine, "shop", "acme/more/second").scheme == "more"
    sql(engine, "UPDATE catlog.provider SET project = 'other'")
    with pytest.raises(NotFound, match="not an operation of project 'shop'"):
        jobs.operation_of(engine, "shop", "goods")


def test_a_cancelled_job_runs_until_its_process_has_stopped(engine: Engine) -> None:
    given_a_scheme(engine)
    job = given_a_job(engine)
    [held] = claim(engine, "node")
    assert jobs.cancel(engine, "shop", job) == "running"
    assert jobs.state(engine, "shop", job) == ("running", "cancelled")
    attempts.release(engine, held.attempt)
    assert jobs.state(engine, "shop", job) == ("finished", "cancelled")
    assert jobs.cancel(engine, "shop", job) is None
