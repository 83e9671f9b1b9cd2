"""Costs that must not grow with history: statements read no whole table of ended work."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, event, text

from catlog_scrapy.db.engine import make_engine
from catlog_scrapy.store.maintenance.prune import prune
from catlog_scrapy.store.maintenance.prune_counting import count_prunable
from catlog_scrapy.store.maintenance.tick import tick
from catlog_scrapy.store.queue import attempts, claims, jobs
from catlog_scrapy.store.queue.report import Report
from catlog_scrapy.store.queue.schedules.due import make_due
from catlog_scrapy.store.queue.starting import start_waiting
from catlog_scrapy.store.reading.listings import LISTINGS
from catlog_scrapy.store.reading.page_query import PageQuery, PageSource
from catlog_scrapy.store.reading.pages import describe, read_page
from catlog_scrapy.store.reading.status import (
    attempts_of,
    catalog_tree,
    find_catalog,
    has_open_work,
    latest_catalogs,
    rejected_of,
)
from tests.support.factories import given_a_catalog, given_a_schedule, given_a_scheme, one, sql
from tests.support.postgres import Postgres
from tests.support.reads import entries_read

CATALOGS, RESULTS = 20_000, 40_000
# A statement may read so many rows of ended work: those that it returns, or those of a batch.
MAX_READ = 2_000
EXPLAINABLE = ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")
TABLES = ("catalog", "catalog_scheme_operation_instance", "instance_attempt")


@pytest.fixture(scope="module")
def engine(postgres: Postgres) -> Iterator[Engine]:
    """Return an engine on a database with a history, and some open work."""
    with postgres.clone() as url:
        engine = make_engine(url)
        fill(engine)
        yield engine
        engine.dispose()


def fill(engine: Engine) -> None:
    """Insert loaded catalogs, each with an instance and an attempt, that pruning has looked at."""
    given_a_scheme(engine)
    for number in range(3):
        given_a_schedule(engine, name=f"number {number}")
    sql(
        engine,
        f"""INSERT INTO catlog.catalog (provider_id, scheme_id, schedule_id, due_at, origin, state,
                created_at, started_at, finished_at, as_of, prune_at, job, error)
            SELECT s.provider_id, s.id, d.id, t.at, 'schedule',
                CASE WHEN n % 1000 = 0 THEN 'failed' ELSE 'loaded' END, t.at, t.at, t.at, t.at,
                now() + interval '1 day', 'job' || n, CASE WHEN n % 1000 = 0 THEN 'broken' END
            FROM catlog.catalog_scheme s
            JOIN catlog.schedule d ON d.name = 'number 0'
            CROSS JOIN generate_series(1, {CATALOGS}) AS n
            CROSS JOIN LATERAL (
                SELECT date_trunc('minute', now()) - n * interval '1 minute' AS at) AS t""",
    )
    sql(
        engine,
        """INSERT INTO catlog.catalog_scheme_operation_instance
               (id, catalog_id, operation_id, provider_id, state, attempt)
           SELECT catlog.uuid7(c.created_at), c.id, o.id, c.provider_id, 'done', 1
           FROM catlog.catalog c
           JOIN catlog.catalog_scheme_operation o ON o.scheme_id = c.scheme_id""",
    )
    sql(
        engine,
        f"""INSERT INTO catlog.instance_attempt (instance_id, attempt, node, deadline_at, outcome,
                started_at, finished_at, accepted)
            SELECT i.id, 1, 'node', now(), 'done', c.started_at, c.finished_at,
                {RESULTS // CATALOGS}
            FROM catlog.catalog_scheme_operation_instance i
            JOIN catlog.catalog c ON c.id = i.catalog_id""",
    )
    sql(
        engine,
        f"""INSERT INTO catlog.catalog_operation_instance_result
                (instance_id, attempt, seq, kind, key, key_hash, data)
            SELECT i.id, 1, n, 'goods', n::text, gen_random_uuid(), '{{}}'
            FROM catlog.catalog_scheme_operation_instance i
            CROSS JOIN generate_series(0, {RESULTS // CATALOGS - 1}) AS n""",
    )
    given_a_catalog(engine)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))


@contextmanager
def plans_of(engine: Engine) -> Iterator[list[tuple[str, int]]]:
    """Give the statements of the block, each with the number of rows of ended work that it reads.

    Each statement runs twice: first by EXPLAIN ANALYZE, in a savepoint.
    """
    found: list[tuple[str, int]] = []

    def explain(_: Any, cursor: Any, statement: str, values: Any, *__: Any) -> None:
        if statement.split(maxsplit=1)[0].upper() not in (
            "SELECT",
            "INSERT",
            "UPDATE",
            "DELETE",
            "WITH",
        ):
            return
        with cursor.connection.cursor() as own:
            own.execute("SAVEPOINT explaining")
            own.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", values)
            [answer] = own.fetchone()
            own.execute("ROLLBACK TO SAVEPOINT explaining")
        plan = answer if isinstance(answer, list) else json.loads(answer)
        found.append((" ".join(statement.split()), rows_read(plan[0]["Plan"])))

    event.listen(engine, "before_cursor_execute", explain)
    yield found
    event.remove(engine, "before_cursor_execute", explain)


def rows_read(plan: dict[str, Any]) -> int:
    """Return the rows of large tables that a plan reads, those that a filter removes included."""
    own = 0
    name = plan.get("Relation Name", "")
    if name in TABLES or name.startswith("catalog_operation_instance_result"):
        per_loop = sum(
            plan.get(key, 0)
            for key in ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck")
        )
        own = round(per_loop * plan["Actual Loops"])
    if "Index Name" in plan and plan["Node Type"] == "Bitmap Index Scan":
        own = round(plan["Actual Rows"] * plan["Actual Loops"])
    return own + sum(rows_read(part) for part in plan.get("Plans", ()))


def a_catalog(engine: Engine) -> UUID:
    found: UUID = one(engine, "SELECT id FROM catlog.catalog WHERE state = 'failed' LIMIT 1")
    return found


READERS: dict[str, Callable[[Engine], Any]] = {
    "has_open_work": has_open_work,
    "latest_catalogs": latest_catalogs,
    "failed_catalogs": lambda engine: latest_catalogs(engine, failed=True),
    "find_catalog": lambda engine: find_catalog(engine, str(a_catalog(engine))[:8]),
    "find_job": lambda engine: find_catalog(engine, "job777"),
    "attempts_of": lambda engine: attempts_of(engine, a_catalog(engine)),
    "rejected_of": lambda engine: rejected_of(engine, a_catalog(engine)),
    "catalog_tree": lambda engine: catalog_tree(engine, a_catalog(engine)),
    "pending_jobs": jobs.pending,
    "count_of_pending_jobs": jobs.count_pending,
    "running_jobs": jobs.running,
    "ended_jobs": jobs.ended,
    "state_of_a_job": lambda engine: jobs.state(engine, None, "job777"),
    "dry_run_of_prune": count_prunable,
    "prune": prune,
    "start_waiting": start_waiting,
    "make_due": make_due,
    "tick": lambda engine: tick(engine, 60.0),
}


@pytest.mark.parametrize("name", READERS)
def test_cost_does_not_grow_with_history(engine: Engine, name: str) -> None:
    with plans_of(engine) as found:
        READERS[name](engine)
    assert found
    assert [(read, statement) for statement, read in found if read > MAX_READ] == []


def test_cost_of_a_claim_does_not_grow_with_history(engine: Engine) -> None:
    """EXPLAIN does not show the statements of the functions that claim and complete."""
    held: list[claims.Claim] = []
    claim = partial(claims.claim, engine, "node")
    assert entries_read(engine, TABLES, lambda: held.extend(claim())) < MAX_READ
    complete = partial(attempts.complete, engine, held[0].attempt, Report())
    assert entries_read(engine, TABLES, complete) < MAX_READ


LARGE_LISTINGS = [
    listing
    for listing in LISTINGS
    if listing.path in ("catalogs", "catalog_scheme_operation_instances", "catalog_results")
]


@pytest.mark.parametrize("listing", LARGE_LISTINGS, ids=lambda listing: listing.path)
def test_cost_of_a_page_does_not_grow_with_history(engine: Engine, listing: Any) -> None:
    with engine.connect() as connection:
        columns = describe(connection, listing.sql)
        source = PageSource(listing.sql, columns, listing.order)
        query = PageQuery(fields=tuple(columns), limit=20)
        with plans_of(engine) as found:
            page = read_page(connection, source, query)
    assert len(page.lines) == 20
    assert [(read, statement) for statement, read in found if read > MAX_READ] == []
