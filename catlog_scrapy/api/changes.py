"""A change through the API: done once, with a trace of who did it."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from fastapi import Request, Response
from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse
from sqlalchemy import Engine

from catlog_scrapy.api.auth.callers import Caller
from catlog_scrapy.api.problems import Problem
from catlog_scrapy.store.access.audit import record_audit
from catlog_scrapy.store.access.idempotency import (
    IdempotencyKeyReused,
    StoredResponse,
    find_response,
    store_response,
)
from catlog_scrapy.store.sql import Transaction, transaction

HEADER = "Idempotency-Key"
KEY = re.compile(r"[\x20-\x7e]{1,255}")
# For the documentation of who calls `change`.
ONCE: dict[str, Any] = {
    "parameters": [
        {
            "name": HEADER,
            "in": "header",
            "required": False,
            "description": "the same request with the same key is done once; for a day",
            "schema": {"type": "string", "minLength": 1, "maxLength": 255},
            "example": "7d9c1a52-0f0c-4a52-9a1e-0a8de6e4c1f0",
        }
    ]
}


@dataclass(frozen=True)
class Changed:
    """What was changed, and the answer to who asked for it.

    *target* and *detail* go to the audit: nothing in them is secret. *body* becomes JSON; None is
    no body at all.
    """

    target: str
    body: Any
    status: int = 200
    detail: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


def change(
    engine: Engine,
    request: Request,
    caller: Caller,
    action: str,
    work: Callable[[Transaction], Changed],
    *,
    body: bytes | Mapping[str, Any] | None = None,
) -> Response:
    """Do *work* in one transaction with its audit row; *action* is the permission it took.

    With an `Idempotency-Key` the answer is part of the transaction too: the same request of the
    same caller gets it again, for a day, and nothing is done. *body* is the request's, to know it
    by. What *work* raises undoes all, and is not remembered. Raises Problem 422.
    """
    key = request.headers.get(HEADER)
    if key is not None and not KEY.fullmatch(key):
        message = "should have 1 to 255 printable ASCII characters"
        raise Problem(422, "The request is wrong.", errors=[(f"header.{HEADER}", message)])
    fingerprint = _fingerprint(request, body)
    with transaction(engine) as tx:
        if key is not None:
            try:
                former = find_response(tx, caller.name, key, fingerprint)
            except IdempotencyKeyReused as error:
                message = "came with another request before; a new request needs a new key"
                raise Problem(422, str(error), errors=[(f"header.{HEADER}", message)]) from error
            if former is not None:
                return _response(former, replayed=True)
        changed = work(tx)
        answer = StoredResponse(
            changed.status, jsonable_encoder(changed.body), dict(changed.headers)
        )
        record_audit(
            tx,
            actor=caller.name,
            role=caller.role,
            action=action,
            target=changed.target,
            address=caller.address,
            detail=changed.detail,
        )
        if key is not None and changed.status < 500:
            store_response(tx, caller.name, key, fingerprint, answer)
    return _response(answer)


def _fingerprint(request: Request, body: bytes | Mapping[str, Any] | None) -> str:
    """A hash of all that makes two requests the same; a slash at the end of the path does not."""
    # Not of `request.url`, for that begins with what the client says the host is.
    path, query = request.scope["path"].rstrip("/"), request.scope["query_string"].decode("latin-1")
    asked = json.dumps([request.method, path, query, _written(body)])
    return sha256(asked.encode()).hexdigest()


def _written(body: bytes | Mapping[str, Any] | None) -> str:
    if isinstance(body, bytes):
        return sha256(body).hexdigest()
    return "" if body is None else json.dumps(body, sort_keys=True, default=str)


def _response(answer: StoredResponse, *, replayed: bool = False) -> Response:
    headers = {**answer.headers, **({"Idempotent-Replayed": "true"} if replayed else {})}
    if answer.body is None:
        return Response(status_code=answer.status, headers=headers)
    return JSONResponse(answer.body, answer.status, headers=headers)
