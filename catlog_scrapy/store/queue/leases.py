"""Leases: renewal and supervision."""

from collections.abc import Sequence

from sqlalchemy import Engine

from catlog_scrapy.store.queue.attempts import AttemptName
from catlog_scrapy.store.sql import Database, call, load_sql, rows

HEARTBEAT = load_sql(__name__, "heartbeat")


def heartbeat(
    engine: Database, attempts: Sequence[AttemptName], *, lease: float = 60.0
) -> dict[AttemptName, str]:
    """Renew the leases of *attempts* for *lease* seconds, in one statement.

    The reply to each attempt is `go`, `cancel` (its catalog stopped), `timed_out` (past its
    deadline) or `lost` (another worker has the instance). An attempt whose row is locked gets `go`,
    and its lease is renewed by the next heartbeat.
    """
    found = call(
        engine,
        HEARTBEAT,
        instances=[str(name.instance) for name in attempts],
        numbers=[name.number for name in attempts],
        lease=lease,
    )
    return {name: found["replies"].get(str(name), "lost") for name in attempts}


def supervise(engine: Engine, attempts: Sequence[AttemptName]) -> dict[AttemptName, str]:
    """Read what *attempts* in processes of their own have to do, without renewing leases.

    The replies are those of `heartbeat`, and `ended` (the attempt has its outcome, its process may
    still be closing) or `unbegun` (no process began the attempt within start_timeout).
    """
    with engine.connect() as connection:
        found = rows(
            connection,
            """SELECT held.instance, held.number, CASE
                   WHEN a.outcome IN ('lost', 'cancelled', 'released') THEN 'lost'
                   WHEN a.outcome IS NOT NULL THEN 'ended'
                   WHEN i.attempt <> held.number OR i.state IN ('new', 'done') THEN 'lost'
                   WHEN i.state <> 'running' OR c.state <> 'loading' THEN 'cancel'
                   WHEN a.deadline_at < clock_timestamp() THEN 'timed_out'
                   WHEN a.begun_at IS NULL AND a.started_at < clock_timestamp()
                       - make_interval(secs => (a.limits ->> 'start_timeout')::float)
                       THEN 'unbegun'
                   ELSE 'go' END AS reply
               FROM unnest(CAST(:instances AS uuid[]), CAST(:numbers AS int[]))
                   AS held (instance, number)
               JOIN catlog.catalog_scheme_operation_instance i ON i.id = held.instance
               JOIN catlog.catalog c ON c.id = i.catalog_id
               JOIN catlog.instance_attempt a
                   ON a.instance_id = held.instance AND a.attempt = held.number""",
            instances=[str(name.instance) for name in attempts],
            numbers=[name.number for name in attempts],
        )
    replies = {AttemptName(row["instance"], row["number"]): row["reply"] for row in found}
    return {name: replies.get(name, "lost") for name in attempts}
