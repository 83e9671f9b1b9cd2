"""Changes through the API: idempotent, and recorded in the audit."""

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
from catlog_scrapy.api.path_prefix import public_path
from catlog_scrapy.api.problems import Problem
from catlog_scrapy.store.access.audit import record_audit
from catlog_scrapy.store.access.idempotency import (
    IdempotencyKeyReused,
    StoredResponse,
    find_response,
    store_response,
)
from catlog_scrapy.store.sql import Transaction, transaction

IDEMPOTENCY_HEADER = "Idempotency-Key"
IDEMPOTENCY_KEY = re.compile(r"[\x20-\x7e]{1,255}")
# For `openapi_extra` of the routes that call `run_change`.
IDEMPOTENT: dict[str, Any] = {
    "parameters": [
        {
            "name": IDEMPOTENCY_HEADER,
            "in": "header",
            "required": False,
            "description": "Idempotency key. For a day the same request with the same key returns"
            " the stored response, and nothing is executed.",
            "schema": {"type": "string", "minLength": 1, "maxLength": 255},
            "example": "7d9c1a52-0f0c-4a52-9a1e-0a8de6e4c1f0",
        }
    ]
}


@dataclass(frozen=True)
class ChangeResult:
    """Result of a change, for the response and for the audit.

    *target* and *detail* go to the audit and must not contain secrets. *body* becomes JSON; None
    stands for a response without a body.
    """

    target: str
    body: Any
    status: int = 200
    detail: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


def run_change(
    engine: Engine,
    request: Request,
    caller: Caller,
    action: str,
    work: Callable[[Transaction], ChangeResult],
    *,
    body: bytes | Mapping[str, Any] | None = None,
) -> Response:
    """Do *work* in one transaction with its audit row and its stored response.

    *action* is the permission that the change needs. With an `Idempotency-Key` the response is
    stored: the same request of the same caller returns it for a day, and *work* is not done. *body*
    is the body of the request, which is part of its identity. An exception of *work* rolls back
    everything. Raises Problem 422 for an invalid key.
    """
    key = request.headers.get(IDEMPOTENCY_HEADER)
    if key is not None and not IDEMPOTENCY_KEY.fullmatch(key):
        raise _invalid_key("should have 1 to 255 printable ASCII characters")
    fingerprint = _fingerprint(request, body)
    with transaction(engine) as tx:
        if key is not None:
            try:
                stored = find_response(tx, caller.name, key, fingerprint)
            except IdempotencyKeyReused as error:
                raise _invalid_key("belongs to another request; use a new key") from error
            if stored is not None:
                return _response(request, stored, is_replay=True)
        result = work(tx)
        response = StoredResponse(
            result.status, jsonable_encoder(result.body), dict(result.headers)
        )
        record_audit(
            tx,
            actor=caller.name,
            role=caller.role,
            action=action,
            target=result.target,
            address=caller.address,
            detail=result.detail,
        )
        if key is not None and result.status < 500:
            store_response(tx, caller.name, key, fingerprint, response)
    return _response(request, response)


def _invalid_key(message: str) -> Problem:
    field_name = f"header.{IDEMPOTENCY_HEADER}"
    return Problem(422, f"{field_name}: {message}", errors=[(field_name, message)])


def _fingerprint(request: Request, body: bytes | Mapping[str, Any] | None) -> str:
    """Return a hash that identifies a request; a trailing slash of the path makes no difference."""
    # `request.url` would not do: it begins with the Host header.
    path, query = request.scope["path"].rstrip("/"), request.scope["query_string"].decode("latin-1")
    identity = json.dumps([request.method, path, query, _body_text(body)])
    return sha256(identity.encode()).hexdigest()


def _body_text(body: bytes | Mapping[str, Any] | None) -> str:
    if isinstance(body, bytes):
        return sha256(body).hexdigest()
    return "" if body is None else json.dumps(body, sort_keys=True, default=str)


def _response(request: Request, stored: StoredResponse, *, is_replay: bool = False) -> Response:
    headers = {**stored.headers, **({"Idempotent-Replayed": "true"} if is_replay else {})}
    if "Location" in headers:
        headers["Location"] = public_path(request, headers["Location"])
    if stored.body is None:
        return Response(status_code=stored.status, headers=headers)
    return JSONResponse(stored.body, stored.status, headers=headers)
