"""Steps of the database's clock: times that a clock ahead has set are brought back."""

import datetime as dt
import logging

from sqlalchemy import Connection, Engine

from catlog_scrapy.store.sql import one, run, scalar

logger = logging.getLogger(__name__)

# The clock's latest time is stored when the clock is this much later.
STORE_INTERVAL_S = 5.0
# Smaller steps back delay nothing that matters; time servers make them all the time.
MIN_STEP_S = 1.0
# Key of the advisory lock; any number that no other program uses.
CLOCK_LOCK = 4_226_007

SEEN = """
    (SELECT timestamptz 'epoch' + last_value * interval '1 microsecond' FROM catlog.clock_seen)"""

STORE_SEEN = """
    SELECT setval('catlog.clock_seen',
        CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint))"""

# Waits, leases and deadlines, each moved back by the step, or to now. Rows that another transaction
# has locked are in use, so that they get other times anyway.
REPAIRS = (
    """UPDATE catlog.catalog_scheme_operation_instance SET
           available_at = CASE WHEN requeued
               THEN greatest(clock_timestamp(), available_at - :step) ELSE clock_timestamp() END
       WHERE id IN (SELECT id FROM catlog.catalog_scheme_operation_instance
                    WHERE state = 'new' AND available_at > clock_timestamp()
                    ORDER BY id FOR NO KEY UPDATE SKIP LOCKED)""",
    """UPDATE catlog.catalog_scheme_operation_instance SET
           available_at = least(available_at, clock_timestamp()),
           lease_expires_at = greatest(
               clock_timestamp() + make_interval(secs => :lease), lease_expires_at - :step)
       WHERE id IN (SELECT id FROM catlog.catalog_scheme_operation_instance
                    WHERE node IS NOT NULL AND lease_expires_at
                        > clock_timestamp() + make_interval(secs => :lease)
                    ORDER BY id FOR NO KEY UPDATE SKIP LOCKED)""",
    """UPDATE catlog.instance_attempt a SET
           started_at = a.started_at - :step, deadline_at = a.deadline_at - :step
       FROM catlog.catalog_scheme_operation_instance i
       WHERE a.instance_id = i.id AND a.attempt = i.attempt AND i.node IS NOT NULL
         AND a.started_at > clock_timestamp() AND a.outcome IS NULL""",
    """UPDATE catlog.catalog SET
           publish_at = CASE WHEN publish_failures > 0
               THEN greatest(clock_timestamp(), publish_at - :step) ELSE clock_timestamp() END
       WHERE id IN (SELECT id FROM catlog.catalog
                    WHERE state = 'publishing' AND publish_at > clock_timestamp()
                    ORDER BY id FOR NO KEY UPDATE SKIP LOCKED)""",
    """UPDATE catlog.node SET polled_at = clock_timestamp()
       WHERE polled_at > clock_timestamp()""",
    """UPDATE catlog.login_failure SET last_at = least(last_at, clock_timestamp()),
           blocked_until = greatest(clock_timestamp(), blocked_until - :step)
       WHERE blocked_until > clock_timestamp()""",
)


def check_clock(engine: Engine, *, lease: float) -> None:
    """Store the time of the database's clock; after a step back, repair what lies ahead.

    A clock that was ahead delays nothing for longer than it was wrong. *lease* is in seconds.
    """
    with engine.begin() as connection:
        found = one(
            connection,
            f"""SELECT clock, seen - clock > make_interval(secs => :step) AS is_behind,
                    CASE WHEN clock - seen > make_interval(secs => :interval)
                        THEN ({STORE_SEEN}) END AS stored
                FROM (SELECT clock_timestamp() AS clock, {SEEN} AS seen) AS times""",
            step=MIN_STEP_S,
            interval=STORE_INTERVAL_S,
        )
    if found["is_behind"]:
        with engine.begin() as connection:
            _repair(connection, lease)


def _repair(connection: Connection, lease: float) -> None:
    if not scalar(connection, "SELECT pg_try_advisory_xact_lock(:key)", key=CLOCK_LOCK):
        return
    # Another process may have repaired the times before this one got the lock.
    step: dt.timedelta = scalar(connection, f"SELECT {SEEN} - clock_timestamp()")
    if step.total_seconds() <= MIN_STEP_S:
        return
    for statement in REPAIRS:
        run(connection, statement, step=step, lease=lease)
    scalar(connection, STORE_SEEN)
    logger.warning(
        "the database's clock went back by %s; waits, leases and deadlines that it had set ahead"
        " were brought back. Correct the server's clock if it is wrong now",
        step,
    )
