"""Routes by which external executors claim attempts, send results and end attempts."""

import asyncio
import hashlib
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Body, Depends, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from catlog_scrapy.api.auth.callers import Caller, ServerAccess, permission
from catlog_scrapy.api.changes import ChangeResult, run_change
from catlog_scrapy.api.executors import messages
from catlog_scrapy.api.executors.batches import (
    declared_size,
    parse_batch,
    read_body,
    request_media_type,
)
from catlog_scrapy.api.executors.claiming import ACTION, ClaimAttempt
from catlog_scrapy.api.problems import Problem, problem_responses
from catlog_scrapy.api.server import is_shutting_down
from catlog_scrapy.api.state import ServerState, State
from catlog_scrapy.scheduling.cursor import CursorError
from catlog_scrapy.store.access.audit import record_audit
from catlog_scrapy.store.queue import executors as external
from catlog_scrapy.store.queue.attempts import AttemptName
from catlog_scrapy.store.queue.external_batches import kinds_of, store_batch
from catlog_scrapy.store.sql import Transaction, transaction

MAX_BATCH_NUMBER = 2**31 - 1

router = APIRouter(
    prefix="/attempts", tags=["executors"], responses=problem_responses(401, 403, 422)
)
Executor = Annotated[Caller, Depends(permission("attempts", "execute"))]
Attempt = Annotated[
    str,
    Path(
        description="Name of the attempt, as the claim returned it.",
        pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.[1-9][0-9]{0,8}$",
        examples=["7d9c1a52-0f0c-4a52-9a1e-0a8de6e4c1f0.1"],
    ),
]


@router.post(
    "/claim",
    response_model=messages.ClaimReply,
    response_description="The claimed attempts; an empty list without work.",
    summary="Claim attempts",
)
async def claim_attempts(
    request: Request,
    claim: messages.ClaimRequest,
    state: State,
    access: ServerAccess,
    _: Executor,
) -> Response:
    """Claim queued instances of the named operations.

    With `wait` the response comes as soon as there is work, or empty after that many seconds. One
    response has attempts of one provider. If the response is lost, another executor gets the
    attempts after their lease.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + claim.wait
    poll_interval_s = state.settings.getfloat("CATLOG_POLL")

    def try_claim() -> tuple[ClaimAttempt, Response | None]:
        # Authenticated each time: a key that is revoked during the wait gets no attempts.
        caller = access.caller(request, "attempts", "execute")
        claiming = ClaimAttempt(state, request, caller, claim)
        return claiming, claiming.run()

    while True:
        claiming, response = await run_in_threadpool(try_claim)
        if await request.is_disconnected():
            await run_in_threadpool(claiming.undo)
            return Response()
        if response or loop.time() >= deadline or is_shutting_down(request.app):
            return response or JSONResponse({"attempts": []})
        await asyncio.sleep(max(0.0, min(poll_interval_s, deadline - loop.time())))


@router.post(
    "/{attempt}/heartbeat",
    response_description="Whether to continue.",
    summary="Renew the lease of an attempt",
    responses=problem_responses(404),
)
def heartbeat(attempt: Attempt, state: State, caller: Executor) -> messages.HeartbeatReply:
    """Renew the lease. Send a heartbeat every third of the lease; stop at any reply but `go`."""
    name = AttemptName.parse(attempt)
    reply, expires_at = external.renew(state.engine, name, caller.name, state.lease_s)
    return messages.HeartbeatReply.model_validate({"reply": reply, "expires_at": expires_at})


@router.post(
    "/{attempt}/results",
    response_description="The batch is stored, except for rejected items.",
    summary="Send a batch of results",
    responses=problem_responses(404, 409, 415),
    openapi_extra={"requestBody": messages.BATCH_REQUEST_BODY},
)
async def send_results(
    request: Request,
    attempt: Attempt,
    batch: Annotated[
        int, Query(ge=1, le=MAX_BATCH_NUMBER, description="Number of the batch, from 1.")
    ],
    state: State,
    caller: Executor,
) -> messages.BatchReply:
    """Store a batch completely or not at all. Send batches in the order of their numbers.

    A batch may be sent again if its response was lost; the repetition changes nothing.
    """
    media_type = request_media_type(request)
    name = AttemptName.parse(attempt)
    # Checked before the body is read, so that requests for foreign attempts take no memory.
    await run_in_threadpool(kinds_of, state.engine, name, caller.name)
    max_bytes = state.settings.getint("CATLOG_API_BATCH")
    size = declared_size(request, max_bytes)

    def store() -> messages.BatchReply:
        return _store_batch(state, caller, name, batch, body=body, media_type=media_type)

    async with state.body_budget.hold(caller.name, size):
        body = await read_body(request, max_bytes=max_bytes, timeout_s=state.lease_s)
        return await to_thread.run_sync(store, limiter=state.batch_limiter)


@router.post(
    "/{attempt}/complete",
    response_model=messages.AttemptOutcome,
    response_description="The outcome of the attempt.",
    summary="Complete an attempt",
    responses=problem_responses(404, 409),
)
def complete_attempt(
    request: Request,
    attempt: Attempt,
    body: messages.CompleteRequest,
    state: State,
    caller: Executor,
) -> Response:
    """End an attempt after its last batch. Safe to repeat.

    The outcome is `done` only if all batches are stored and bring enough results. A missing batch
    is named in a 409 problem, and the attempt stays open.
    """
    response = _end(state, request, caller, attempt, verb="complete", given=body.model_dump())
    state.maintenance.run_soon()
    return response


@router.post(
    "/{attempt}/fail",
    response_model=messages.AttemptOutcome,
    response_description="The outcome of the attempt.",
    summary="Fail an attempt",
    responses=problem_responses(404, 409),
)
def fail_attempt(
    request: Request,
    attempt: Attempt,
    body: messages.FailRequest,
    state: State,
    caller: Executor,
) -> Response:
    """End an attempt that cannot be completed.

    The instance is retried after its backoff, unless its catalog has reached `max_errors`.
    """
    return _end(state, request, caller, attempt, verb="fail", given=body.model_dump())


@router.post(
    "/{attempt}/release",
    response_model=messages.AttemptOutcome,
    response_description="The outcome of the attempt.",
    summary="Release an attempt",
    responses=problem_responses(404, 409),
)
def release_attempt(
    request: Request,
    attempt: Attempt,
    state: State,
    caller: Executor,
    body: Annotated[messages.ReleaseRequest | None, Body()] = None,
) -> Response:
    """Return an unfinished attempt to the queue. Another executor may claim the instance at once.

    A release does not count as an error.
    """
    given = (body or messages.ReleaseRequest()).model_dump()
    return _end(state, request, caller, attempt, verb="release", given=given)


def _store_batch(
    state: ServerState,
    caller: Caller,
    name: AttemptName,
    number: int,
    *,
    body: bytes,
    media_type: str,
) -> messages.BatchReply:
    kinds = kinds_of(state.engine, name, caller.name)
    parsed = parse_batch(body, media_type, kinds)
    # The media type is part of the digest: the same records in another format are another batch.
    digest = hashlib.sha256(media_type.encode())
    digest.update(body)
    with transaction(state.engine) as tx:
        is_new = store_batch(
            tx,
            name,
            caller.name,
            number=number,
            digest=digest.hexdigest(),
            lines=parsed.rows,
            rejected=parsed.rejected,
            rejections=parsed.rejections,
        )
        if is_new:
            record_audit(
                tx,
                actor=caller.name,
                role=caller.role,
                action=ACTION,
                target=f"attempt {name}",
                address=caller.address,
                detail={"verb": "results", "batch": number, "accepted": len(parsed.rows)},
            )
    return messages.BatchReply(
        batch=number,
        accepted=len(parsed.rows),
        rejected=parsed.rejected,
        rejections=parsed.reported,
    )


def _end(
    state: ServerState,
    request: Request,
    caller: Caller,
    attempt: str,
    *,
    verb: str,
    given: dict[str, Any],
) -> Response:
    name = AttemptName.parse(attempt)

    def work(tx: Transaction) -> ChangeResult:
        try:
            ended = external.end(tx, name, caller.name, verb, **given)
        except CursorError as error:
            raise Problem(422, str(error), errors=[("body.cursor", str(error))]) from error
        return ChangeResult(
            target=f"attempt {name}",
            body=messages.AttemptOutcome.model_validate(
                {"outcome": ended.outcome, "error": ended.error}
            ),
            detail={"verb": verb, "outcome": ended.outcome, "again": not ended.changed},
        )

    return run_change(state.engine, request, caller, ACTION, work, body=given)
