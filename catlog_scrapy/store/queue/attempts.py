"""Ends of attempts: complete, fail, release, lost.

A worker whose attempt has ended otherwise changes nothing: attempts are fenced by their number.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self
from uuid import UUID

import orjson
from sqlalchemy import Connection, Engine

from catlog_scrapy.exceptions import NotFound
from catlog_scrapy.plurals import counted
from catlog_scrapy.scheduling.backoff import Backoff
from catlog_scrapy.store.queue.catalog_states import LockedCatalog, lock_catalog, stop_catalog
from catlog_scrapy.store.queue.report import Report
from catlog_scrapy.store.sql import Database, call, clean, row, rows, run

# An instance that is lost so often makes its workers crash.
MAX_LOST_IN_A_ROW = 3
# A day: the longest delay that a source can ask for with Retry-After.
MAX_RETRY_DELAY_S = 86400.0


class AttemptName(NamedTuple):
    """Name of an attempt at an instance: `<uuid>.<number>`."""

    instance: UUID
    number: int

    def __str__(self) -> str:
        return f"{self.instance}.{self.number}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse the text that `str` makes of a name. Raises NotFound."""
        instance, _, number = text.rpartition(".")
        try:
            return cls(UUID(instance), int(number))
        except ValueError as error:
            raise NotFound(f"{text!r} is not a valid attempt; use INSTANCE.NUMBER.") from error


@dataclass(frozen=True)
class LockedInstance:
    """An instance whose row and whose catalog are locked, with one of its attempts.

    `attempt` is the number of its latest attempt, `outcome` that of the attempt in question, which
    ran under `limits`. `is_late` says that the attempt is past its deadline.
    """

    catalog: LockedCatalog
    id: UUID
    attempt: int
    state: str
    node: str | None
    failures: int
    lost: int
    outcome: str | None
    limits: dict[str, Any]
    is_late: bool


# The columns of a LockedInstance but its catalog, of an instance `i` and its attempt `a`.
LOCKED_COLUMNS = """i.id, i.attempt, i.state, i.node, i.failures, i.lost, a.outcome, a.limits,
    a.deadline_at < clock_timestamp() AS is_late"""


COMPLETE = """
    SELECT * FROM catlog.complete_attempt(
        CAST(:instance AS uuid), :number, :accepted, :rejected, :dropped, CAST(:stats AS jsonb),
        :log, :read_to)"""


def complete(
    engine: Database, name: AttemptName, report: Report, limits: Mapping[str, Any] | None = None
) -> str:
    """End an attempt whose spider has closed, and return the outcome.

    The outcome is `done` only if the load is complete and all results are stored. The last
    instance done sets its catalog to `publishing`. *limits* are those of the attempt's claim, read
    again if None. Safe to repeat: of an attempt that has ended, the outcome is returned and nothing
    changes.
    """
    if limits is None:
        limits = _read_limits(engine, name)
    outcome, error = report.judge(limits, report.accepted)
    if outcome == "done":
        ended = call(
            engine, COMPLETE, instance=name.instance, number=name.number, **_summary(report)
        )
        if not ended["is_known"]:
            raise NotFound(f"no attempt {name}.")
        if ended["outcome"]:
            return str(ended["outcome"])
        outcome, error = report.judge(limits, ended["stored"])
    return fail(engine, name, error or outcome, outcome=outcome, report=report)


def _read_limits(engine: Database, name: AttemptName) -> dict[str, Any]:
    with engine.connect() as connection:
        found = row(
            connection,
            """SELECT limits FROM catlog.instance_attempt
               WHERE instance_id = :instance AND attempt = :number""",
            instance=name.instance,
            number=name.number,
        )
    if found is None:
        raise NotFound(f"no attempt {name}.")
    return dict(found["limits"])


def _summary(report: Report) -> dict[str, Any]:
    """Return what an attempt keeps of its report, as values of statements."""
    return {
        "accepted": report.accepted,
        "rejected": report.rejected,
        "dropped": report.dropped,
        "stats": _json(report.stats),
        "log": report.log,
        # The next load reads again the requests that failed, though they were tolerated.
        "read_to": None if report.has_gaps() else report.cursor,
    }


def fail(
    engine: Database,
    name: AttemptName,
    error: str,
    *,
    outcome: str = "failed",
    report: Report | None = None,
) -> str:
    """End an attempt that cannot be completed, for the reason *error*, and return the outcome.

    *outcome* is `failed`, `incomplete`, `timed_out`, `lost` or `cancelled`. `cancelled` becomes
    `lost` if the catalog is still open: the worker stopped for nothing. Safe to repeat.
    """
    with engine.begin() as connection:
        locked = lock_attempt(connection, name)
        if locked.outcome:
            return locked.outcome
        return _close(connection, locked, outcome, error, report or Report())


def release(
    engine: Database,
    name: AttemptName,
    report: Report | None = None,
    *,
    error: str = "released: its worker stopped",
) -> str:
    """Give an attempt back unfinished, for the reason *error*, and return the outcome.

    The catalog's errors are not counted up.
    """
    return fail(engine, name, error, outcome="released", report=report)


def end_orphaned_attempts(engine: Engine, node: str) -> int:
    """End the attempts that a former process of *node* left running, and return their number.

    The process must have ended.
    """
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
    """End a locked attempt whose lease has expired."""
    if locked.is_late:
        _close(connection, locked, "timed_out", "it ran past its time limit", Report())
    else:
        error = f"its worker on {locked.node} vanished"
        _close(connection, locked, "lost", error, Report())


def lock_attempt(connection: Connection, name: AttemptName) -> LockedInstance:
    """Lock the instance of an attempt, after its catalog. Raises NotFound."""
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
        f"""SELECT {LOCKED_COLUMNS} FROM catlog.catalog_scheme_operation_instance i
            JOIN catlog.instance_attempt a ON a.instance_id = i.id AND a.attempt = :number
            WHERE i.id = :id FOR NO KEY UPDATE OF i""",
        id=name.instance,
        number=name.number,
    )
    if instance is None:
        raise NotFound(f"no attempt {name}.")
    return LockedInstance(catalog, **instance)


def _close(
    connection: Connection, locked: LockedInstance, outcome: str, error: str | None, report: Report
) -> str:
    """Write the outcome of the attempt, then the states of its instance and catalog.

    Returns the outcome, which may be another than *outcome*.
    """
    if locked.state == "cancelled":
        outcome, error = "cancelled", locked.catalog.error
    elif outcome == "cancelled":
        outcome = "lost"
    run(
        connection,
        """UPDATE catlog.instance_attempt SET outcome = :outcome, error = :error,
               finished_at = clock_timestamp(), log = coalesce(:log, log),
               stats = CAST(:stats AS jsonb), accepted = :accepted, rejected = :rejected,
               dropped = :dropped, read_to = :read_to
           WHERE instance_id = :id AND attempt = :attempt""",
        id=locked.id,
        attempt=locked.attempt,
        outcome=outcome,
        error=clean(error) if error else None,
        **_summary(report),
    )
    if outcome not in ("released", "cancelled") and locked.catalog.first_error is None:
        run(
            connection,
            "UPDATE catlog.catalog SET first_error = :error WHERE id = :id",
            id=locked.catalog.id,
            error=clean(error or outcome),
        )
    match outcome:
        case "released":
            _move(connection, locked, "new")
        case "cancelled":
            _move(connection, locked, "cancelled")
        case "lost" if locked.lost + 1 < MAX_LOST_IN_A_ROW:
            _move(connection, locked, "new", lost=locked.lost + 1)
            # To the end of the queue: an instance that crashes its workers must not be the first
            # claim of each new one, nor be lost three times to one machine that keeps crashing.
            run(
                connection,
                """UPDATE catlog.catalog_scheme_operation_instance SET position = DEFAULT
                   WHERE id = :id""",
                id=locked.id,
            )
        case "lost":
            _move(connection, locked, "failed", lost=MAX_LOST_IN_A_ROW)
            stop_catalog(
                connection,
                locked.catalog,
                "failed",
                f"lost {MAX_LOST_IN_A_ROW} times in a row: {error}",
            )
        case _:
            _count_failure(connection, locked, error or outcome, report)
    return outcome


def _count_failure(
    connection: Connection, locked: LockedInstance, error: str, report: Report
) -> None:
    """Reschedule the instance after its backoff, or fail the catalog at max_errors.

    The delay is at least as long as the source asked for, but not more than a day for that reason.
    An error that another attempt would meet again fails the catalog at once.
    """
    errors = locked.catalog.errors + 1
    failures = locked.failures + 1
    run(
        connection,
        "UPDATE catlog.catalog SET errors = :errors WHERE id = :id",
        id=locked.catalog.id,
        errors=errors,
    )
    if report.is_permanent or errors >= locked.limits["max_errors"]:
        _move(connection, locked, "failed", failures=failures, lost=0)
        stop_catalog(
            connection,
            locked.catalog,
            "failed",
            f"{counted(errors, 'attempt')} failed; {_first_and_last(locked.catalog, error)}"
            + ("; not retried, as it would fail again" if report.is_permanent else ""),
        )
        return
    backoff = Backoff(locked.limits["backoff_base"], locked.limits["backoff_cap"])
    wait = max(min(report.retry_after, MAX_RETRY_DELAY_S), backoff.delay(failures, random.random()))
    _move(connection, locked, "new", failures=failures, lost=0, wait=wait)


def _first_and_last(catalog: LockedCatalog, error: str) -> str:
    """Return the first and the last error: the first is often the cause of the others."""
    if catalog.first_error in (None, clean(error)):
        return f"last error: {error}"
    return f"first error: {catalog.first_error}; last error: {error}"


def _move(
    connection: Connection,
    locked: LockedInstance,
    state: str,
    *,
    failures: int | None = None,
    lost: int | None = None,
    wait: float = 0.0,
) -> None:
    """Free the slot and set the instance's state; it can be claimed in *wait* seconds."""
    run(
        connection,
        """UPDATE catlog.catalog_scheme_operation_instance
           SET state = :state, requeued = :state = 'new', node = NULL, lease_expires_at = NULL,
               failures = :failures, lost = :lost,
               available_at = clock_timestamp() + make_interval(secs => :wait)
           WHERE id = :id""",
        id=locked.id,
        state=state,
        failures=locked.failures if failures is None else failures,
        lost=locked.lost if lost is None else lost,
        wait=wait,
    )


def _json(stats: Mapping[str, Any]) -> str:
    """Return Scrapy's statistics as JSON, with other values than numbers and booleans as text."""
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
