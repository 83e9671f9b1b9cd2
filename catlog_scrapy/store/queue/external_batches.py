"""Batches of results that external executors send."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection

from catlog_scrapy.exceptions import NotPossible
from catlog_scrapy.records.validation import Rejection, Row
from catlog_scrapy.store.lock_timeouts import set_statement_timeout
from catlog_scrapy.store.queue.attempts import AttemptName
from catlog_scrapy.store.queue.copy_format import RowPrefix, write_rows
from catlog_scrapy.store.queue.external_attempts import lock_outcome, require_open, require_owner
from catlog_scrapy.store.queue.results import (
    MAX_REJECTED_ITEMS,
    copy_rows,
    store_rejected,
)
from catlog_scrapy.store.sql import Database, Transaction, one, row, rows, run

# The timeout of a server's readers is too short to store a batch, or to count millions of rows.
BATCH_STATEMENT_TIMEOUT_S = 60.0


def kinds_of(database: Database, name: AttemptName, owner: str) -> list[Mapping[str, Any]]:
    """Return the kinds of records that an attempt brings: name, key and fields.

    Raises NotFound, and NotPossible if the attempt no longer accepts results.
    """
    with database.connect() as connection:
        require_owner(connection, name, owner)
        require_open(connection, name)
        return rows(
            connection,
            """SELECT k.name, k.key, k.fields, k.untracked, k.item_rules AS rules
               FROM catlog.kind k
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
    """Store batch *number*; return False if a batch with the same body is stored already.

    *digest* is the hash of its body. *rejected* counts all rejected items, of which *rejections*
    are the first. Raises NotFound, or NotPossible if an earlier batch is missing, if the batch was
    sent with another body, or if the attempt no longer accepts results.
    """
    with transaction.begin() as connection:
        set_statement_timeout(connection, BATCH_STATEMENT_TIMEOUT_S)
        require_owner(connection, name, owner)
        lock_outcome(connection, name)
        require_open(connection, name)
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
            raise NotPossible(f"batch {number} was already sent with another body.")
        sent = count_batches(connection, name)
        if number != sent.batches + 1:
            raise NotPossible(f"batch {number} came before batch {sent.batches + 1}; send that.")
        if lines:
            batch = bytearray()
            write_rows(batch, _row_prefix(connection, name), sent.accepted, lines)
            copy_rows(connection, batch)
        if kept := rejections[: max(0, MAX_REJECTED_ITEMS - sent.rejected)]:
            store_rejected(
                Transaction(connection), name, [(None, *rejection) for rejection in kept]
            )
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


def _row_prefix(connection: Connection, name: AttemptName) -> RowPrefix:
    """Return the prefix of an attempt's rows, for its provider and the kinds that it brings."""
    found = one(
        connection,
        """SELECT i.provider_id AS provider, (
               SELECT coalesce(jsonb_object_agg(k.name, k.untracked), '{}') FROM catlog.kind k
               WHERE k.operation_id = i.operation_id) AS untracked
           FROM catlog.catalog_scheme_operation_instance i WHERE i.id = :id""",
        id=name.instance,
    )
    return RowPrefix(name, found["provider"], found["untracked"])


class BatchCounts(NamedTuple):
    """Counts of an attempt's stored batches, and of their accepted and rejected items."""

    batches: int
    accepted: int
    rejected: int


def count_batches(connection: Connection, name: AttemptName) -> BatchCounts:
    """Count the stored batches of an attempt and their items."""
    found = one(
        connection,
        """SELECT count(*) AS batches, coalesce(sum(accepted), 0)::bigint AS accepted,
               coalesce(sum(rejected), 0)::bigint AS rejected
           FROM catlog.result_batch WHERE instance_id = :instance AND attempt = :number""",
        instance=name.instance,
        number=name.number,
    )
    return BatchCounts(**found)
