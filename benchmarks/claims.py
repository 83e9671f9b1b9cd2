"""Benchmark claims: speed of claims beside many finished instances."""

import statistics
import time

from sqlalchemy import Connection, Engine, text

from benchmarks.common import Result, Server, note, run_sql
from catlog_scrapy.store.queue import attempts, claims

INSTANCE = "catlog.catalog_scheme_operation_instance"


def run(server: Server, small: bool) -> Result:
    """Compare claims per second beside 1 000 000 finished instances with an empty table.

    The worst case: a snapshot was opened before the instances were claimed and finished, so VACUUM
    cannot remove their dead index entries. Each claim takes one instance, which is then completed,
    so that `max_running` (2) is never reached. Only claims are timed.
    """
    finished, count, rounds = (2_000, 10, 2) if small else (1_000_000, 200, 5)
    with server.database() as empty, server.database() as full:
        for engine in (empty, full):
            queue(engine, 0)
        with full.connect().execution_options(isolation_level="REPEATABLE READ") as reader:
            reader.execute(text("SET idle_in_transaction_session_timeout = 0"))
            reader.commit()
            finish(full, finished, reader)
            beside, alone = [], []
            for _ in range(rounds):
                alone.append(claim_all(empty, count))
                beside.append(claim_all(full, count))
                note(f"{beside[-1]:.0f} claims a second, {alone[-1]:.0f} in an empty table")
    return Result("claims", statistics.median(beside) / statistics.median(alone), ">=0.8")


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


def claim_all(engine: Engine, count: int) -> float:
    """Return claims per second over *count* new instances, claimed one at a time."""
    queue(engine, count)
    taken = 0.0
    for _ in range(count):
        started = time.perf_counter()
        [held] = claims.claim(engine, "bench")
        taken += time.perf_counter() - started
        attempts.complete(engine, held.attempt, attempts.Report())
    return count / taken
