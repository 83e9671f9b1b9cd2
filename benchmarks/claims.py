"""Benchmark claims: cost of claims beside many finished instances."""

from sqlalchemy import Connection, Engine, text

from benchmarks.common import Scale, Server, run_sql
from benchmarks.measuring import ZERO, Cost, in_turn
from benchmarks.report import Result, compare_cpu, note_costs
from catlog_scrapy.store.queue import attempts, claims
from catlog_scrapy.store.queue.report import Report

INSTANCE = "catlog.catalog_scheme_operation_instance"


def run(server: Server, scale: Scale) -> list[Result]:
    """Compare the CPU of claims beside 500 000 finished instances with an empty table.

    The worst case: a snapshot was opened before the instances were claimed and finished, so VACUUM
    cannot remove their dead index entries. Each claim takes one instance, which is then completed,
    so that `max_running` (2) is never reached. Only claims are measured. `--rows 1000000` measures
    the size of the goal.
    """
    finished, rounds = scale.count(500_000, 500), scale.times()
    count = 10 if scale.small else 200
    with server.database() as empty, server.database() as full:
        for engine in (empty, full):
            queue(engine, 0)
        with full.connect().execution_options(isolation_level="REPEATABLE READ") as reader:
            reader.execute(text("SET idle_in_transaction_session_timeout = 0"))
            reader.commit()
            finish(full, finished, reader)
            beside, alone = in_turn(
                rounds,
                lambda: claim_all(server, full, count),
                lambda: claim_all(server, empty, count),
            )
    note_costs(count, beside=beside, alone=alone)
    return [compare_cpu("claims", beside, alone, ">=0.9", count)]


def queue(engine: Engine, count: int) -> None:
    """Insert a catalog with *count* new instances, and its provider and scheme if missing."""
    run_sql(
        engine,
        """INSERT INTO catlog.provider (name, max_running) VALUES ('shop', 2)
           ON CONFLICT DO NOTHING""",
        """INSERT INTO catlog.catalog_scheme (provider_id, name, version)
           SELECT id, 'products', 1 FROM catlog.provider ON CONFLICT DO NOTHING""",
        """INSERT INTO catlog.catalog_scheme_operation (scheme_id, name, spider, min_results)
           SELECT id, 'products', 'products', 0 FROM catlog.catalog_scheme
           ON CONFLICT DO NOTHING""",
        f"""WITH made AS (
                INSERT INTO catlog.catalog (provider_id, scheme_id, origin, state, as_of)
                SELECT provider_id, id, 'load', 'loading', clock_timestamp()
                FROM catlog.catalog_scheme RETURNING id, provider_id)
            INSERT INTO {INSTANCE} (catalog_id, operation_id, provider_id, part)
            SELECT made.id, o.id, made.provider_id, number::text
            FROM made, catlog.catalog_scheme_operation o, generate_series(1, {count}) AS number""",
    )


def finish(engine: Engine, count: int, reader: Connection) -> None:
    """Insert *count* instances, open the *reader*'s snapshot, then run and finish the instances.

    Few statements leave the same dead rows in the table and its indexes as many.
    """
    queue(engine, count)
    run_sql(engine, f"VACUUM ANALYZE {INSTANCE}")
    reader.execute(text(f"SELECT count(*) FROM {INSTANCE}"))
    run_sql(
        engine,
        f"""UPDATE {INSTANCE} SET state = 'running', attempt = 1, node = 'bench',
                available_at = clock_timestamp(),
                lease_expires_at = clock_timestamp() + interval '1 hour'""",
        f"UPDATE {INSTANCE} SET state = 'done', node = NULL, lease_expires_at = NULL",
        f"VACUUM ANALYZE {INSTANCE}",
    )


def claim_all(server: Server, engine: Engine, count: int) -> Cost:
    """Return the cost of *count* claims of new instances, one at a time."""
    queue(engine, count)
    cost = ZERO
    for _ in range(count):
        held: list[claims.Claim] = []
        cost += server.meter.measure(lambda: held.extend(claims.claim(engine, "bench")))  # noqa: B023
        attempts.complete(engine, held[0].attempt, Report())
    return cost
