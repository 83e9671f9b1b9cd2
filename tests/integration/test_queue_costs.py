"""Costs of the queue beside dead index entries of finished instances, and in growing tables."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Engine, text

from catlog_scrapy.db.engine import make_engine
from catlog_scrapy.store.queue import attempts, claim_hints
from catlog_scrapy.store.queue.claim_hints import claim_hints_of
from catlog_scrapy.store.queue.claims import Claim, begin, claim
from catlog_scrapy.store.queue.leases import heartbeat
from catlog_scrapy.store.queue.report import Report
from tests.support.factories import (
    an_operation,
    claim_of,
    given_a_catalog,
    given_a_scheme,
    one,
    sql,
)
from tests.support.postgres import Postgres
from tests.support.reads import entries_read
from tests.support.waiting import until

INSTANCE = "catlog.catalog_scheme_operation_instance"
TABLES = ("catalog", "catalog_scheme_operation_instance", "instance_attempt")
FINISHED, WAITING, GROWN = 20_000, 60, 2_000
# Index entries that a call may read: those of a few instances, and dead ones since the
# latest search for the head of the queue.
MAX_ENTRIES = 200


@pytest.fixture(scope="module")
def engine(postgres: Postgres) -> Iterator[Engine]:
    """Return an engine on a catalog with many finished instances and some that wait.

    A snapshot has been open since before they ran.
    """
    with postgres.clone() as url:
        engine = make_engine(url)
        given_a_scheme(engine)
        given_a_catalog(engine)
        insert_instances(engine, FINISHED)
        with engine.connect().execution_options(isolation_level="REPEATABLE READ") as reader:
            reader.execute(text(f"SELECT count(*) FROM {INSTANCE}"))
            finish_all(engine)
            insert_instances(engine, WAITING)
            yield engine
        engine.dispose()


@pytest.fixture
def held(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Claim:
    """Return a claim, made when the head of the queue is known."""
    monkeypatch.setattr(claim_hints, "CLAIMS_PER_SEARCH", 1)
    last = one(engine, f"SELECT max(position) FROM {INSTANCE} WHERE state = 'done'")
    claim(engine, "here")
    search_until_behind(engine, last)
    [held] = claim(engine, "here")
    return held


def insert_instances(engine: Engine, count: int) -> None:
    """Insert *count* instances of the only catalog."""
    sql(
        engine,
        f"""INSERT INTO {INSTANCE} (catalog_id, operation_id, provider_id, part)
            SELECT c.id, o.id, c.provider_id, gen_random_uuid()::text
            FROM catlog.catalog c
            JOIN catlog.catalog_scheme_operation o ON o.scheme_id = c.scheme_id
            CROSS JOIN generate_series(1, {count})""",
    )


def finish_all(engine: Engine) -> None:
    """Run and finish all instances, and let the planner know that none is open."""
    sql(
        engine,
        f"""UPDATE {INSTANCE} SET state = 'running', attempt = 1, node = 'here',
                available_at = now() - interval '1 hour'""",
    )
    sql(engine, f"UPDATE {INSTANCE} SET state = 'done', node = NULL")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"VACUUM ANALYZE {INSTANCE}"))


def search_until_behind(engine: Engine, position: int) -> None:
    """Search until the head of the only queue is behind *position*.

    Transactions of other databases on this server may delay the head.
    """
    hints = claim_hints_of(engine)

    def is_behind() -> bool:
        hints.refresh(engine)
        return max((head.position for head in hints.heads.values()), default=0) > position

    until(is_behind)


CALLS: dict[str, Callable[[Engine, Claim], Any]] = {
    "claim": lambda engine, _: claim(engine, "here"),
    "claim_of_many": lambda engine, _: claim(engine, "here", limit=8),
    "claim_of_a_catalog": lambda engine, held: claim(engine, "here", catalogs=[held.catalog]),
    "begin": lambda engine, held: begin(engine, held.attempt, 1),
    "heartbeat": lambda engine, held: heartbeat(engine, [held.attempt]),
    "complete": lambda engine, held: attempts.complete(engine, held.attempt, Report()),
    "release": lambda engine, held: attempts.release(engine, held.attempt),
}


@pytest.mark.parametrize("name", CALLS)
def test_queue_reads_no_entries_of_finished_instances(
    engine: Engine, held: Claim, name: str
) -> None:
    assert 0 < entries_read(engine, TABLES, lambda: CALLS[name](engine, held)) < MAX_ENTRIES


@pytest.mark.parametrize("tags", [[], ["browser"]])
def test_claim_reads_the_head_of_a_long_queue_that_was_analysed(
    postgres: Postgres, tags: list[str]
) -> None:
    """The planner must not read and sort the whole queue because few operations seem to match."""
    with postgres.clone() as url:
        engine = make_engine(url)
        for number in range(WAITING):
            given_a_scheme(engine, an_operation(f"idle{number}"), name=f"idle{number}")
        given_a_scheme(engine, an_operation(tags=tags))
        given_a_catalog(engine)
        insert_instances(engine, FINISHED)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))
        claim(engine, "here", tags=tags)
        for limit in (1, 8):
            take = partial(claim, engine, "here", limit=limit, tags=tags)
            assert 0 < entries_read(engine, TABLES, take) < MAX_ENTRIES
        engine.dispose()


def test_claims_pass_instances_that_wait_for_other_workers(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker without tags looks once at the instances of operations with tags, not each time."""
    monkeypatch.setattr(claim_hints, "CLAIMS_PER_SEARCH", 1)
    with postgres.clone() as url:
        engine = make_engine(url)
        given_a_scheme(engine, an_operation(tags=["browser"]))
        given_a_catalog(engine)
        insert_instances(engine, FINISHED)
        last = one(engine, f"SELECT max(position) FROM {INSTANCE}")
        sql(
            engine,
            f"""INSERT INTO catlog.catalog_scheme_operation (scheme_id, name, spider, for_each)
                SELECT s.id, 'plain', 'plain', jsonb_agg(part::text)
                FROM catlog.catalog_scheme s, generate_series(1, {WAITING}) AS part
                GROUP BY s.id""",
        )
        given_a_catalog(engine, operation="plain")
        claim(engine, "here")
        search_until_behind(engine, last)
        for limit in (1, 8):
            read = entries_read(engine, TABLES, lambda limit=limit: claim(engine, "x", limit=limit))
            assert 0 < read < MAX_ENTRIES
        claimed = claim(engine, "here", limit=WAITING)
        assert {each.operation for each in claimed} == {"plain"}
        assert claim(engine, "here") == []
        with_tags = claim(engine, "here", limit=3, tags=["browser"])
        assert [each.operation for each in with_tags] == ["goods"] * 3
        engine.dispose()


def test_plans_made_in_empty_tables_stay_good(database_url: str) -> None:
    """A session keeps its plans until the tables are analysed."""
    engine = make_engine(database_url)
    for table in TABLES:
        sql(engine, f"ALTER TABLE catlog.{table} SET (autovacuum_enabled = false)")
    given_a_scheme(engine)
    held = claim_of(engine, given_a_catalog(engine))
    attempts.complete(engine, held.attempt, Report())
    insert_catalogs(engine, GROWN)
    assert 0 < entries_read(engine, TABLES, lambda: claim(engine, "here")) < MAX_ENTRIES
    [held] = claim(engine, "here")
    complete = partial(attempts.complete, engine, held.attempt, Report())
    assert 0 < entries_read(engine, TABLES, complete) < MAX_ENTRIES
    engine.dispose()


def insert_catalogs(engine: Engine, count: int) -> None:
    """Insert *count* catalogs with an instance that waits, each with a former attempt."""
    sql(
        engine,
        f"""WITH made AS (
                INSERT INTO catlog.catalog (provider_id, scheme_id, origin, state)
                SELECT s.provider_id, s.id, 'load', 'loading'
                FROM catlog.catalog_scheme s CROSS JOIN generate_series(1, {count})
                RETURNING id, provider_id, scheme_id),
            waiting AS (
                INSERT INTO {INSTANCE} (catalog_id, operation_id, provider_id, attempt)
                SELECT made.id, o.id, made.provider_id, 1
                FROM made JOIN catlog.catalog_scheme_operation o ON o.scheme_id = made.scheme_id
                RETURNING id)
            INSERT INTO catlog.instance_attempt (instance_id, attempt, node, deadline_at, outcome)
            SELECT id, 1, 'here', now(), 'released' FROM waiting""",
    )
