"""Idempotency keys: stored responses, replayed when a client repeats a request."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func

from catlog_scrapy.exceptions import NotPossible
from catlog_scrapy.models.access import IdempotentRequest
from catlog_scrapy.store.sql import Transaction, row, run, upsert

KEEP_RESPONSES_S = 86400.0


class IdempotencyKeyReused(NotPossible):
    """The idempotency key belongs to another request. Raised by `find_response`."""


@dataclass(frozen=True)
class StoredResponse:
    """Response to a change; `body` is JSON, or None if the response has no body."""

    status: int
    body: Any
    headers: Mapping[str, str]


def find_response(
    transaction: Transaction, actor: str, key: str, request: str
) -> StoredResponse | None:
    """Return the response to the first *request* of *actor* with *key*, or None for a new key.

    Waits for the transaction of a concurrent request with the same key. Raises
    IdempotencyKeyReused.
    """
    with transaction.begin() as connection:
        run(
            connection,
            "SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))",
            name=f"idempotent {actor} {key}",
        )
        # A second statement, since a statement sees only rows committed before its start.
        found = row(
            connection,
            """SELECT request, status, body, headers FROM catlog.idempotent_request
               WHERE actor = :actor AND key = :key
                 AND created_at > clock_timestamp() - make_interval(secs => :kept)""",
            actor=actor,
            key=key,
            kept=KEEP_RESPONSES_S,
        )
    if found is None:
        return None
    if found["request"] != request:
        raise IdempotencyKeyReused(
            "this idempotency key belongs to another request; use a new key for a new request."
        )
    return StoredResponse(found["status"], found["body"], found["headers"])


def store_response(
    transaction: Transaction, actor: str, key: str, request: str, response: StoredResponse
) -> None:
    """Store the response for KEEP_RESPONSES_S."""
    with transaction.begin() as connection:
        upsert(
            connection,
            IdempotentRequest,
            {
                "actor": actor,
                "key": key,
                "request": request,
                "status": response.status,
                "body": response.body,
                "headers": dict(response.headers),
                "created_at": func.clock_timestamp(),
            },
            conflict=["actor", "key"],
        )
