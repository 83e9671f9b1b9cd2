"""External executors: claims, leases and ends of their attempts.

An attempt belongs to the caller that claimed it: its node is `OWNER/WORKER`. For other callers the
attempt does not exist. The order of locks is catalog, instance, attempt; a batch locks only the
attempt.
"""

import datetime as dt
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from catlog_scrapy.exceptions import NotPossible
from catlog_scrapy.plurals import counted
from catlog_scrapy.scheduling.cursor import CursorError, validate_cursor
from catlog_scrapy.store.lock_timeouts import set_statement_timeout
from catlog_scrapy.store.queue import attempts, claims, leases
from catlog_scrapy.store.queue.attempts import AttemptName
from catlog_scrapy.store.queue.external_attempts import (
    AttemptState,
    attempt_not_found,
    ended_message,
    lock_outcome,
    read_state,
    require_owner,
)
from catlog_scrapy.store.queue.external_batches import (
    BATCH_STATEMENT_TIMEOUT_S,
    BatchCounts,
    count_batches,
)
from catlog_scrapy.store.queue.report import Report
from catlog_scrapy.store.queue.resuming import resume_cursor
from catlog_scrapy.store.sql import Database, Transaction, row, rows


@dataclass(frozen=True)
class LeasedClaim:
    """A claim with its lease, deadline and cursor.

    `cursor` is where an incremental operation resumes, "" for the beginning; None for other
    operations.
    """

    claim: claims.Claim
    cursor: str | None
    expires_at: dt.datetime
    deadline_at: dt.datetime


@dataclass(frozen=True)
class EndedAttempt:
    """Outcome of an attempt; `changed` is false if the attempt had ended before the call."""

    outcome: str
    error: str | None
    changed: bool


def operations(database: Database) -> list[Mapping[str, Any]]:
    """Return the operations of all versions; `present` says that the version is not retired."""
    with database.connect() as connection:
        return rows(
            connection,
            """SELECT o.id, p.name AS provider, s.name AS scheme, o.name, o.executor, o.tags,
                   s.retired_at IS NULL AS present
               FROM catlog.catalog_scheme_operation o
               JOIN catlog.catalog_scheme s ON s.id = o.scheme_id
               JOIN catlog.provider p ON p.id = s.provider_id
               ORDER BY p.name, s.name, o.name, s.version""",
        )


def take(
    transaction: Transaction,
    node: str,
    *,
    refused: Collection[UUID],
    tags: Collection[str],
    limit: int,
    lease: float,
) -> tuple[list[LeasedClaim], dict[AttemptName, str]]:
    """Claim up to *limit* instances of external operations, except the *refused* ones.

    All tags of an operation must be among *tags*.

    Returns the claims, and the attempts that must fail at once, with the reason: they cannot resume
    from their cursor.
    """
    claimed = claims.claim(
        transaction,
        node,
        limit=limit,
        lease=lease,
        executor="external",
        tags=tags,
        refused=refused,
    )
    cursors: dict[AttemptName, str | None] = {}
    hopeless: dict[AttemptName, str] = {}
    for claim in claimed:
        try:
            incremental = claim.mode == "incremental"
            cursors[claim.attempt] = resume_cursor(transaction, claim) if incremental else None
        except CursorError as error:
            # The caller fails them, in another transaction: here their catalogs would be locked
            # after their instances.
            hopeless[claim.attempt] = str(error)
    with transaction.connect() as connection:
        return [
            LeasedClaim(claim, cursors[claim.attempt], **_times(connection, claim.attempt))
            for claim in claimed
            if claim.attempt in cursors
        ], hopeless


def _times(connection: Connection, name: AttemptName) -> dict[str, Any]:
    found = row(
        connection,
        """SELECT i.lease_expires_at AS expires_at, a.deadline_at FROM catlog.instance_attempt a
           JOIN catlog.catalog_scheme_operation_instance i ON i.id = a.instance_id
           WHERE a.instance_id = :instance AND a.attempt = :number""",
        instance=name.instance,
        number=name.number,
    )
    if found is None:
        raise attempt_not_found(name)
    return dict(found)


def renew(
    database: Database, name: AttemptName, owner: str, lease: float
) -> tuple[str, dt.datetime | None]:
    """Renew a lease; return the reply of `leases.heartbeat` and the time when the lease expires.

    The time is None if the lease was not renewed. Raises NotFound.
    """
    with database.begin() as connection:
        require_owner(connection, name, owner)
        reply = leases.heartbeat(Transaction(connection), [name], lease=lease)[name]
        expires_at = _times(connection, name)["expires_at"] if reply == "go" else None
    return reply, expires_at


# The outcomes of each way to end an attempt. A repeated request returns the same outcome; any
# other outcome refuses it.
POSSIBLE_OUTCOMES = {
    "complete": ("done", "incomplete", "failed", "timed_out", "cancelled"),
    "fail": ("failed", "timed_out", "cancelled"),
    "release": ("released", "timed_out", "cancelled"),
}


def end(
    transaction: Transaction,
    name: AttemptName,
    owner: str,
    how: str,
    *,
    batches: int = 0,
    cursor: str | None = None,
    error: str = "",
    retry_after: float = 0.0,
) -> EndedAttempt:
    """End an attempt: *how* is `complete`, `fail` or `release`. Safe to repeat.

    A completed attempt must have *batches* batches. Past its deadline an attempt is `timed_out`.
    Raises NotFound, CursorError, and NotPossible if the attempt has another outcome or if batches
    are missing.
    """
    with transaction.begin() as connection:
        set_statement_timeout(connection, BATCH_STATEMENT_TIMEOUT_S)
        require_owner(connection, name, owner)
        attempts.lock_attempt(connection, name)
        lock_outcome(connection, name)
        state = read_state(connection, name)
        if before := state.outcome:
            if before not in POSSIBLE_OUTCOMES[how]:
                raise NotPossible(ended_message(name, before, state.error))
            return EndedAttempt(before, state.error, changed=False)
        sent = count_batches(connection, name)
        report = _report(connection, name, state, sent)
        report.retry_after = retry_after
        inner = Transaction(connection)
        if not state.is_open:
            attempts.fail(inner, name, "its catalog stopped", outcome="cancelled", report=report)
        elif state.is_late:
            late = "it ran past its time limit"
            attempts.fail(inner, name, late, outcome="timed_out", report=report)
        elif how == "complete":
            _require_all(name, sent.batches, batches)
            report.cursor = _checked_cursor(state, cursor)
            attempts.complete(inner, name, report, state.limits)
        elif how == "fail":
            attempts.fail(inner, name, error, report=report)
        else:
            attempts.release(inner, name, report, error=f"released: {error}")
        state = read_state(connection, name)
        return EndedAttempt(state.outcome or "", state.error, changed=True)


def _report(
    connection: Connection,
    name: AttemptName,
    state: AttemptState,
    sent: BatchCounts,
) -> Report:
    report = Report(
        accepted=sent.accepted,
        rejected=sent.rejected,
        stats={"batches": sent.batches},
        resumed=bool(state.read_from),
    )
    if sent.rejected:
        first = row(
            connection,
            """SELECT errors, left(data, 200) AS data FROM catlog.rejected_result
               WHERE instance_id = :instance AND attempt = :number ORDER BY created_at LIMIT 1""",
            instance=name.instance,
            number=name.number,
        )
        if first:
            report.reasons["rejected"] = f"{'; '.join(first['errors'])} in {first['data']}"
    return report


def _require_all(name: AttemptName, stored: int, expected: int) -> None:
    if stored < expected:
        raise NotPossible(
            f"batch {stored + 1} of {name} is missing; send the missing batches, then complete"
            " again."
        )
    if stored > expected:
        raise NotPossible(
            f"{name} has {counted(stored, 'batch', 'batches')}, not {expected}; send the right"
            " number."
        )


def _checked_cursor(state: AttemptState, cursor: str | None) -> str | None:
    if cursor is None:
        return None
    if state.mode != "incremental":
        raise CursorError("the operation is not incremental; leave the cursor out")
    return validate_cursor(cursor, state.limits.get("overlap"))
