"""How an attempt ends: complete, fail, release, lost. Whoever is fenced off changes nothing."""

import random
from collections.abc import Mapping
from typing import Any, NamedTuple, Self
from uuid import UUID

import orjson
from sqlalchemy import Connection, Engine

from catlog_scrapy.exceptions import NotFound
from catlog_scrapy.scheduling.backoff import Backoff
from catlog_scrapy.store.queue.catalog_states import lock_catalog, stop_catalog
from catlog_scrapy.store.queue.report import Report
from catlog_scrapy.store.sql import Database, clean, row, rows, run
from catlog_scrapy.wording import counted

# An instance whose worker vanished so often takes its workers with it.
MAX_LOST_IN_A_ROW = 3
# Seconds that an instance is put off for at most, whatever its source asks for.
MAX_RETRY_DELAY_S = 86400.0


class AttemptName(NamedTuple):
    """One try at one instance: `<uuid>.<number>`."""

    instance: UUID
    number: int

    def __str__(self) -> str:
        return f"{self.instance}.{self.number}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` wrote. Raises NotFound."""
        instance, _, number = text.rpartition(".")
        try:
            return cls(UUID(instance), int(number))
        except ValueError as error:
            raise NotFound(f"{text!r} names no attempt; write INSTANCE.NUMBER.") from error


class LockedInstance(NamedTuple):
    """A locked catalog and a locked instance of it, joined with the attempt in question."""

    catalog: Mapping[str, Any]
    instance: Mapping[str, Any]


def complete(engine: Database, name: AttemptName, report: Report) -> str:
    """End an attempt whose spider has closed; its outcome, `done` only if all of it is stored.

    The last instance done makes its catalog `publishing`. Safe to repeat: an attempt that has
    ended answers with its outcome and nothing changes.
    """
    with engine.begin() as connection:
        # Counted before the catalog is locked: a million rows take a moment, and nobody else
        # writes rows of this attempt.
        counted = row(
            connection,
            """SELECT count(*) AS stored FROM catlog.catalog_operation_instance_result
               WHERE instance_id = :instance AND attempt = :number""",
            instance=name.instance,
            number=name.number,
        )
        locked = lock_attempt(connection, name)
        if locked.instance["outcome"]:
            return str(locked.instance["outcome"])
        stored = counted["stored"] if counted else 0
        outcome, error = report.judge(locked.instance["limits"], stored)
        return _close(connection, locked, outcome, error, report)


def fail(
    engine: Database,
    name: AttemptName,
    error: str,
    *,
    outcome: str = "failed",
    report: Report | None = None,
) -> str:
    """End an attempt that cannot be completed, for the reason *error*; its outcome.

    *outcome* is `failed`, `timed_out`, `lost` or `cancelled`; the last is taken for `lost` where
    the catalog goes on: its worker only believed that it had to stop. Safe to repeat.
    """
    with engine.begin() as connection:
        locked = lock_attempt(connection, name)
        if locked.instance["outcome"]:
            return str(locked.instance["outcome"])
        return _close(connection, locked, outcome, error, report or Report())


def release(
    engine: Database,
    name: AttemptName,
    report: Report | None = None,
    *,
    error: str = "released: its worker stopped",
) -> str:
    """Give an attempt back unfinished; it costs the catalog no error. *error* says why."""
    return fail(engine, name, error, outcome="released", report=report)


def end_orphaned_attempts(engine: Engine, node: str) -> int:
    """End what a former process of *node* left running; how many. It must be gone for good."""
    with engine.connect() as connection:
        left = rows(
            connection,
            """SELECT i.id, i.attempt FROM catlog.catalog_scheme_operation_instance i
               WHERE i.node = :node""",
            node=node,
        )
    for instance in left:
        name = AttemptName(instance["id"], instance["attempt"])
        fail(engine, name, f"its node {node} went down", outcome="lost")
    return len(left)


def close_lost(connection: Connection, locked: LockedInstance) -> None:
    """End a locked attempt whose lease expired."""
    if locked.instance["late"]:
        _close(connection, locked, "timed_out", "it ran past its time limit", Report())
    else:
        node = locked.instance["node"]
        _close(connection, locked, "lost", f"its worker on {node} vanished", Report())


def lock_attempt(connection: Connection, name: AttemptName) -> LockedInstance:
    """Lock the instance of an attempt, its catalog first. Raises NotFound."""
    found = row(
        connection,
        "SELECT catalog_id FROM catlog.catalog_scheme_operation_instance WHERE id = :id",
        id=name.instance,
    )
    if found is None:
        raise NotFound(f"no attempt {name}.")
    catalog = lock_catalog(connection, found["catalog_id"])
    instance = row(
        connection,
        """SELECT i.*, a.outcome, a.limits, a.attempt AS asked
           FROM catlog.catalog_scheme_operation_instance i
           JOIN catlog.instance_attempt a ON a.instance_id = i.id AND a.attempt = :number
           WHERE i.id = :id FOR NO KEY UPDATE OF i""",
        id=name.instance,
        number=name.number,
    )
    if instance is None:
        raise NotFound(f"no attempt {name}.")
    return LockedInstance(catalog, instance)


def _close(
    connection: Connection, locked: LockedInstance, outcome: str, error: str | None, report: Report
) -> str:
    """Write down how the attempt ended, and move its instance and catalog on; the outcome."""
    catalog, instance = locked
    if instance["state"] == "cancelled":
        outcome, error = "cancelled", catalog["error"]
    elif outcome == "cancelled":
        outcome = "lost"
    run(
        connection,
        """UPDATE catlog.instance_attempt SET outcome = :outcome, error = :error,
               finished_at = clock_timestamp(), log = coalesce(:log, log),
               stats = CAST(:stats AS jsonb), accepted = :accepted, rejected = :rejected,
               dropped = :dropped, read_to = :cursor
           WHERE instance_id = :id AND attempt = :attempt""",
        id=instance["id"],
        attempt=instance["attempt"],
        outcome=outcome,
        error=clean(error) if error else None,
        log=report.log,
        stats=_json(report.stats),
        accepted=report.accepted,
        rejected=report.rejected,
        dropped=report.dropped,
        # What was given up, though tolerated, is for the next load to read.
        cursor=None if report.failed_requests or report.blocked_by_robots else report.cursor,
    )
    match outcome:
        case "done":
            _move(connection, instance, "done", lost=0)
            _publish_if_last(connection, catalog)
        case "released":
            _move(connection, instance, "new")
        case "cancelled":
            _move(connection, instance, "cancelled")
        case "lost" if instance["lost"] + 1 < MAX_LOST_IN_A_ROW:
            _move(connection, instance, "new", lost=instance["lost"] + 1)
            # To the end of the queue: what takes its workers with it must not be every next one's
            # first, nor be lost three times over to one machine that keeps dying.
            run(
                connection,
                """UPDATE catlog.catalog_scheme_operation_instance SET position = DEFAULT
                   WHERE id = :id""",
                id=instance["id"],
            )
        case "lost":
            _move(connection, instance, "failed", lost=MAX_LOST_IN_A_ROW)
            stop_catalog(
                connection, catalog, "failed", f"lost {MAX_LOST_IN_A_ROW} times in a row: {error}"
            )
        case _:
            _count_failure(connection, locked, error or outcome, report.retry_after)
    return outcome


def _count_failure(
    connection: Connection, locked: LockedInstance, error: str, least: float
) -> None:
    """Let the instance wait, *least* seconds if that is no day, or its catalog fail."""
    catalog, instance = locked
    limits = instance["limits"]
    errors = catalog["errors"] + 1
    failures = instance["failures"] + 1
    run(
        connection,
        "UPDATE catlog.catalog SET errors = :errors WHERE id = :id",
        id=catalog["id"],
        errors=errors,
    )
    if errors >= limits["max_errors"]:
        _move(connection, instance, "failed", failures=failures, lost=0)
        stop_catalog(
            connection,
            catalog,
            "failed",
            f"{counted(errors, 'attempt')} failed; last error: {error}",
        )
        return
    backoff = Backoff(limits["backoff_base"], limits["backoff_cap"])
    wait = max(min(least, MAX_RETRY_DELAY_S), backoff.delay(failures, random.random()))
    _move(connection, instance, "new", failures=failures, lost=0, wait=wait)


def _move(
    connection: Connection,
    instance: Mapping[str, Any],
    state: str,
    *,
    failures: int | None = None,
    lost: int | None = None,
    wait: float = 0.0,
) -> None:
    """Give the slot back, in the given state; the instance is available in *wait* seconds."""
    run(
        connection,
        """UPDATE catlog.catalog_scheme_operation_instance
           SET state = :state, node = NULL, lease_expires_at = NULL, failures = :failures,
               lost = :lost, available_at = clock_timestamp() + make_interval(secs => :wait)
           WHERE id = :id""",
        id=instance["id"],
        state=state,
        failures=instance["failures"] if failures is None else failures,
        lost=instance["lost"] if lost is None else lost,
        wait=wait,
    )


def _publish_if_last(connection: Connection, catalog: Mapping[str, Any]) -> None:
    run(
        connection,
        """UPDATE catlog.catalog SET state = 'publishing', publish_at = clock_timestamp()
           WHERE id = :id AND state = 'loading' AND NOT EXISTS (
               SELECT 1 FROM catlog.catalog_scheme_operation_instance
               WHERE catalog_id = :id AND state <> 'done')""",
        id=catalog["id"],
    )


def _json(stats: Mapping[str, Any]) -> str:
    """Scrapy's statistics as JSON; what is no number, truth or nothing is written as text."""
    plain = {
        clean(str(name)): value
        if value is None or isinstance(value, bool | int | float)
        else clean(str(value))
        for name, value in stats.items()
    }
    return orjson.dumps(
        {
            name: str(value) if isinstance(value, int) and abs(value) >= 2**63 else value
            for name, value in plain.items()
        }
    ).decode()
