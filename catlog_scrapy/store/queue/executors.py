"""What external executors do: take attempts, send batches of results, and end attempts.

An attempt belongs to whoever claimed it: its node is `OWNER/WORKER`. To anybody else it is not
there. Locks are taken as everywhere: catalog, instance, attempt; a batch locks the attempt alone.
"""

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine

from catlog_scrapy.exceptions import NotFound, NotPossible
from catlog_scrapy.records.validation import Rejection, Row
from catlog_scrapy.scheduling.cursor import CursorError, validate_cursor
from catlog_scrapy.store.lock_timeouts import set_statement_timeout
from catlog_scrapy.store.queue import attempts, claims, leases
from catlog_scrapy.store.queue.attempts import AttemptName
from catlog_scrapy.store.queue.report import Report
from catlog_scrapy.store.queue.results import (
    MAX_REJECTED_ITEMS,
    copy_lines,
    line_prefix,
    store_rejected,
    write_lines,
)
from catlog_scrapy.store.queue.resuming import resume_cursor
from catlog_scrapy.store.sql import Database, Transaction, row, rows, run

# Seconds. What a server's readers may take is too little to store a batch, or to count millions of
# rows.
BATCH_STATEMENT_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class LeasedClaim:
    """A claim with its times. `cursor` is what an incremental one goes on from, "" the beginning.

    None for one that is not incremental.
    """

    claim: claims.Claim
    cursor: str | None
    expires_at: dt.datetime
    deadline_at: dt.datetime


@dataclass(frozen=True)
class EndedAttempt:
    """How an attempt ended; `changed` says that it did so just now."""

    outcome: str
    error: str | None
    changed: bool


def operations(database: Database) -> list[Mapping[str, Any]]:
    """The operations of all versions: id, provider, scheme, name, executor, and `present`."""
    with database.connect() as connection:
        return rows(
            connection,
            """SELECT o.id, p.name AS provider, s.name AS scheme, o.name, o.executor,
                   s.retired_at IS NULL AS present
               FROM catlog.catalog_scheme_operation o
               JOIN catlog.catalog_scheme s ON s.id = o.scheme_id
               JOIN catlog.provider p ON p.id = s.provider_id
               ORDER BY p.name, s.name, o.name, s.version""",
        )


def unclaimed_external_operations(engine: Engine, catalogs: Sequence[UUID]) -> list[str]:
    """The external operations of *catalogs* that nobody has claimed, `provider/scheme/name`."""
    with engine.connect() as connection:
        found = rows(
            connection,
            """SELECT DISTINCT p.name || '/' || s.name || '/' || o.name AS title
               FROM catlog.catalog_scheme_operation_instance i
               JOIN catlog.catalog_scheme_operation o ON o.id = i.operation_id
               JOIN catlog.catalog_scheme s ON s.id = o.scheme_id
               JOIN catlog.provider p ON p.id = i.provider_id
               WHERE i.catalog_id = ANY(CAST(:catalogs AS uuid[])) AND i.state = 'new'
                 AND o.executor = 'external' ORDER BY 1""",
            catalogs=[str(catalog) for catalog in catalogs],
        )
    return [operation["title"] for operation in found]


def take(
    transaction: Transaction,
    node: str,
    *,
    refused: Collection[UUID],
    limit: int,
    lease: float,
) -> tuple[list[LeasedClaim], dict[AttemptName, str]]:
    """Claim up to *limit* instances of external operations, but of none of *refused*.

    Besides, those that are to fail at once, with the reason: they cannot go on from their cursor.
    """
    claimed = claims.claim(
        transaction, node, limit=limit, lease=lease, executor="external", refused=refused
    )
    cursors: dict[AttemptName, str | None] = {}
    hopeless: dict[AttemptName, str] = {}
    for each in claimed:
        try:
            incremental = each.mode == "incremental"
            cursors[each.attempt] = resume_cursor(transaction, each) if incremental else None
        except CursorError as error:
            # Not here: their catalogs would be locked after their instances.
            hopeless[each.attempt] = str(error)
    with transaction.connect() as connection:
        return [
            LeasedClaim(each, cursors[each.attempt], **_times(connection, each.attempt))
            for each in claimed
            if each.attempt in cursors
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
        raise NotFound(f"no attempt {name}.")
    return dict(found)


def renew(
    database: Database, name: AttemptName, owner: str, lease: float
) -> tuple[str, dt.datetime | None]:
    """A heartbeat's reply, as `leases.heartbeat` has it, and until when the lease then holds.

    None where it does not hold. Raises NotFound.
    """
    with database.begin() as connection:
        require_owner(connection, name, owner)
        reply = leases.heartbeat(Transaction(connection), [name], lease=lease)[name]
        expires_at = _times(connection, name)["expires_at"] if reply == "go" else None
    return reply, expires_at


def require_owner(connection: Connection, name: AttemptName, owner: str) -> None:
    """Raise NotFound unless *owner* claimed the attempt."""
    found = row(
        connection,
        "SELECT node FROM catlog.instance_attempt WHERE instance_id = :id AND attempt = :number",
        id=name.instance,
        number=name.number,
    )
    # The worker's name has no slash; the owner's may.
    if found is None or found["node"].rpartition("/")[0] != owner:
        raise NotFound(f"no attempt {name} of yours.")


def kinds_of(database: Database, name: AttemptName, owner: str) -> list[Mapping[str, Any]]:
    """The kinds of the records that an attempt brings: name, key and fields.

    Raises NotFound, and NotPossible where no result counts any more.
    """
    with database.connect() as connection:
        require_owner(connection, name, owner)
        _require_going_on(connection, name)
        return rows(
            connection,
            """SELECT k.name, k.key, k.fields FROM catlog.kind k
               JOIN catlog.catalog_scheme_operation_instance i ON i.operation_id = k.operation_id
               WHERE i.id = :id ORDER BY k.name""",
            id=name.instance,
        )


def store_batch(
    transaction: Transaction,
    name: AttemptName,
    owner: str,
    *,
    number: int,
    digest: str,
    lines: Sequence[Row],
    rejected: int,
    rejections: Sequence[Rejection],
) -> bool:
    """Store batch *number*; False where it was stored before, by the same body.

    *digest* is its body's. *rejected* counts all its rejected items, of which *rejections* are the
    first. Raises NotFound, or NotPossible where it is not its turn, another body was sent as it, or
    no result counts any more.
    """
    with transaction.begin() as connection:
        set_statement_timeout(connection, BATCH_STATEMENT_TIMEOUT_S)
        require_owner(connection, name, owner)
        _lock(connection, name)
        _require_going_on(connection, name)
        former = row(
            connection,
            """SELECT hash FROM catlog.result_batch
               WHERE instance_id = :instance AND attempt = :attempt AND number = :number""",
            instance=name.instance,
            attempt=name.number,
            number=number,
        )
        if former and former["hash"] == digest:
            return False
        if former:
            raise NotPossible(f"batch {number} was sent before, and with another body.")
        sent = count_stored(connection, name)
        if number != sent["batches"] + 1:
            raise NotPossible(f"batch {number} came before batch {sent['batches'] + 1}; send that.")
        if lines:
            batch = bytearray()
            write_lines(batch, line_prefix(name), sent["accepted"], lines)
            copy_lines(connection, batch)
        if kept := rejections[: max(0, MAX_REJECTED_ITEMS - sent["rejected"])]:
            store_rejected(Transaction(connection), name, [(None, *each) for each in kept])
        run(
            connection,
            """INSERT INTO catlog.result_batch
                   (instance_id, attempt, number, hash, accepted, rejected)
               VALUES (:instance, :attempt, :number, :hash, :accepted, :rejected)""",
            instance=name.instance,
            attempt=name.number,
            number=number,
            hash=digest,
            accepted=len(lines),
            rejected=rejected,
        )
    return True


def _lock(connection: Connection, name: AttemptName) -> None:
    """Whoever ends the attempt waits now; what is read from here on is as it will stay."""
    rows(
        connection,
        """SELECT 1 FROM catlog.instance_attempt
           WHERE instance_id = :instance AND attempt = :number FOR NO KEY UPDATE""",
        instance=name.instance,
        number=name.number,
    )


def _standing(connection: Connection, name: AttemptName) -> Mapping[str, Any]:
    """What there is to know of an attempt: its outcome and error, and what keeps it going."""
    found = row(
        connection,
        """SELECT a.outcome, a.error, a.read_from, a.limits, o.mode,
               a.deadline_at < clock_timestamp() AS late,
               i.state = 'running' AND i.attempt = a.attempt AND c.state = 'loading' AS goes_on,
               c.state AS catalog
           FROM catlog.instance_attempt a
           JOIN catlog.catalog_scheme_operation_instance i ON i.id = a.instance_id
           JOIN catlog.catalog_scheme_operation o ON o.id = i.operation_id
           JOIN catlog.catalog c ON c.id = i.catalog_id
           WHERE a.instance_id = :instance AND a.attempt = :number""",
        instance=name.instance,
        number=name.number,
    )
    if found is None:
        raise NotFound(f"no attempt {name}.")
    return found


def _require_going_on(connection: Connection, name: AttemptName) -> None:
    """Raise NotPossible where the attempt has ended, or has to."""
    standing = _standing(connection, name)
    if standing["outcome"]:
        raise NotPossible(_ended(name, standing["outcome"], standing["error"]))
    if not standing["goes_on"]:
        raise NotPossible(f"the catalog of {name} is {standing['catalog']}; stop, and release it.")
    if standing["late"]:
        raise NotPossible(f"{name} is past its deadline; stop, and release it.")


def _ended(name: AttemptName, outcome: str, error: str | None) -> str:
    return f"{name} has ended: {outcome}{f' ({error})' if error else ''}; claim another one."


def count_stored(connection: Connection, name: AttemptName) -> Mapping[str, Any]:
    """How many `batches` of an attempt are stored, and how many items they had, by what became."""
    [found] = rows(
        connection,
        """SELECT count(*) AS batches, coalesce(sum(accepted), 0) AS accepted,
               coalesce(sum(rejected), 0) AS rejected
           FROM catlog.result_batch WHERE instance_id = :instance AND attempt = :number""",
        instance=name.instance,
        number=name.number,
    )
    return {what: int(count) for what, count in found.items()}


# What each way to end an attempt may come to: asked again, it answers the same.
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

    Completed, it must have *batches* batches. Past its deadline it is `timed_out`. Raises NotFound,
    CursorError, and NotPossible where it has ended otherwise or where batches are missing.
    """
    with transaction.begin() as connection:
        set_statement_timeout(connection, BATCH_STATEMENT_TIMEOUT_S)
        require_owner(connection, name, owner)
        attempts.lock_attempt(connection, name)
        _lock(connection, name)
        standing = _standing(connection, name)
        if before := standing["outcome"]:
            if before not in POSSIBLE_OUTCOMES[how]:
                raise NotPossible(_ended(name, before, standing["error"]))
            return EndedAttempt(before, standing["error"], changed=False)
        sent = count_stored(connection, name)
        report = _report(connection, name, standing, sent)
        report.retry_after = retry_after
        inner = Transaction(connection)
        if not standing["goes_on"]:
            attempts.fail(inner, name, "its catalog stopped", outcome="cancelled", report=report)
        elif standing["late"]:
            late = "it ran past its time limit"
            attempts.fail(inner, name, late, outcome="timed_out", report=report)
        elif how == "complete":
            _require_all(name, sent["batches"], batches)
            report.cursor = _checked_cursor(standing, cursor)
            attempts.complete(inner, name, report)
        elif how == "fail":
            attempts.fail(inner, name, error, report=report)
        else:
            attempts.release(inner, name, report, error=f"released: {error}")
        ended = _standing(connection, name)
        return EndedAttempt(ended["outcome"], ended["error"], changed=True)


def _report(
    connection: Connection,
    name: AttemptName,
    standing: Mapping[str, Any],
    sent: Mapping[str, int],
) -> Report:
    report = Report(
        accepted=sent["accepted"],
        rejected=sent["rejected"],
        stats={"batches": sent["batches"]},
        resumed=bool(standing["read_from"]),
    )
    if sent["rejected"]:
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


def _require_all(name: AttemptName, stored: int, said: int) -> None:
    if stored < said:
        raise NotPossible(
            f"batch {stored + 1} of {name} is missing; send it, and those behind it, and complete"
            " again."
        )
    if stored > said:
        raise NotPossible(f"{name} has {stored} batches, not {said}; say how many you sent.")


def _checked_cursor(standing: Mapping[str, Any], cursor: str | None) -> str | None:
    if cursor is None:
        return None
    if standing["mode"] != "incremental":
        raise CursorError("the operation is not incremental; leave the cursor out")
    return validate_cursor(cursor, standing["limits"].get("overlap"))
