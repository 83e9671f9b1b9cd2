"""Answers to changes, for when the same request comes again."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from catlog_scrapy.exceptions import NotPossible
from catlog_scrapy.store.sql import Transaction, row, run

# Seconds that an answer is kept.
KEEP_RESPONSES_S = 86400.0


class IdempotencyKeyReused(NotPossible):
    """The key has been used for another request. Raised by `find_response`."""


@dataclass(frozen=True)
class StoredResponse:
    """What a change was answered with; *body* is JSON, None where there was none."""

    status: int
    body: Any
    headers: Mapping[str, str]


def find_response(
    transaction: Transaction, actor: str, key: str, request: str
) -> StoredResponse | None:
    """What *actor* was told when the *request* came first with this *key*; None if it is the first.

    Another one with the same key is waited for, to the end of its transaction. Raises
    IdempotencyKeyReused.
    """
    with transaction.begin() as connection:
        run(
            connection,
            "SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))",
            name=f"idempotent {actor} {key}",
        )
        # A statement of its own: one sees what was committed when it began, before it waited.
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
            "this key came with another request; take a new key for a new request."
        )
    return StoredResponse(found["status"], found["body"], found["headers"])


def store_response(
    transaction: Transaction, actor: str, key: str, request: str, answer: StoredResponse
) -> None:
    """Keep it for a day."""
    with transaction.begin() as connection:
        run(
            connection,
            """INSERT INTO catlog.idempotent_request (actor, key, request, status, body, headers)
               VALUES (:actor, :key, :request, :status, CAST(:body AS jsonb),
                       CAST(:headers AS jsonb))
               ON CONFLICT (actor, key) DO UPDATE SET
                   request = excluded.request, status = excluded.status, body = excluded.body,
                   headers = excluded.headers, created_at = excluded.created_at""",
            actor=actor,
            key=key,
            request=request,
            status=answer.status,
            body=None if answer.body is None else orjson.dumps(answer.body).decode(),
            headers=orjson.dumps(dict(answer.headers)).decode(),
        )
