"""Executors outside of this project: they claim attempts over HTTP, and bring results."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any
from uuid import UUID

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Body, Depends, FastAPI, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from scrapy.settings import BaseSettings
from sqlalchemy import Engine

from catlog_scrapy.api.auth.callers import Access, Caller
from catlog_scrapy.api.changes import HEADER as IDEMPOTENCY
from catlog_scrapy.api.changes import Changed, change
from catlog_scrapy.api.executors import messages
from catlog_scrapy.api.executors.batches import media_type, parse_batch, read_body
from catlog_scrapy.api.maintenance import MaintenanceThread
from catlog_scrapy.api.problems import Problem, problem_responses
from catlog_scrapy.api.server import is_shutting_down
from catlog_scrapy.declarations.spiders import base_url_of
from catlog_scrapy.scheduling.cursor import CursorError
from catlog_scrapy.store.access.audit import record_audit
from catlog_scrapy.store.queue import executors as external
from catlog_scrapy.store.queue.attempts import AttemptName, fail, release
from catlog_scrapy.store.queue.batches import kinds_of, store_batch
from catlog_scrapy.store.sql import Database, Transaction, transaction

ACTION = "attempts:execute"
# Batches that are parsed and stored at once: each takes several times its size of memory.
BATCHES_AT_ONCE = 2
MOST_NUMBER = 2**31 - 1

Attempt = Annotated[
    str,
    Path(
        description="as the claim named it",
        pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.[1-9][0-9]{0,8}$",
        examples=["7d9c1a52-0f0c-4a52-9a1e-0a8de6e4c1f0.1"],
    ),
]


def executors(engine: Engine, access: Access, settings: BaseSettings) -> APIRouter:
    """The routes under `/attempts`, and maintenance while the server runs."""
    permitted = access.permitted("attempts", "execute")
    lease = settings.getfloat("CATLOG_LEASE")
    poll = settings.getfloat("CATLOG_POLL")
    most = settings.getint("CATLOG_API_BATCH")
    maintenance = MaintenanceThread(engine, lease=lease, poll=poll)
    limiter = CapacityLimiter(BATCHES_AT_ONCE)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        maintenance.start()
        yield
        await asyncio.to_thread(maintenance.stop)

    router = APIRouter(
        prefix="/attempts",
        tags=["executors"],
        lifespan=lifespan,
        responses=problem_responses(401, 403, 422),
    )

    @router.post("/claim", summary="Claim attempts", response_model=messages.ClaimReply)
    async def claim(
        request: Request,
        wanted: messages.ClaimRequest,
        _: Annotated[Caller, Depends(permitted)],
    ) -> Response:
        """Take what is queued of the named operations, of one provider at a time.

        With `wait` the answer comes as soon as there is something, and empty after so many seconds.
        What was claimed and never reached its executor is given to another one after its lease.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + wanted.wait

        def look() -> tuple[Claims, Response | None]:
            # Each time anew: a key that was revoked while it waited gets nothing.
            asking = access.caller(request, "attempts", "execute")
            claims = Claims(engine, settings, request, asking, wanted)
            return claims, claims.answer()

        while True:
            claims, answer = await run_in_threadpool(look)
            if await request.is_disconnected():
                await run_in_threadpool(claims.give_back)
                return Response()
            if answer or loop.time() >= until or is_shutting_down(request.app):
                return answer or JSONResponse({"attempts": []})
            await asyncio.sleep(max(0.0, min(poll, until - loop.time())))

    @router.post(
        "/{attempt}/heartbeat", summary="Keep an attempt", responses=problem_responses(404)
    )
    def heartbeat(
        attempt: Attempt, caller: Annotated[Caller, Depends(permitted)]
    ) -> messages.HeartbeatReply:
        """Renew the lease: every third of it is about right. Any reply but `go` means: stop."""
        reply, expires_at = external.renew(engine, AttemptName.parse(attempt), caller.name, lease)
        return messages.HeartbeatReply.model_validate({"reply": reply, "expires_at": expires_at})

    @router.post(
        "/{attempt}/results",
        summary="Send a batch of results",
        responses=problem_responses(404, 409, 415),
        openapi_extra={"requestBody": messages.BATCH_REQUEST_BODY},
    )
    async def results(
        request: Request,
        attempt: Attempt,
        batch: Annotated[int, Query(ge=1, le=MOST_NUMBER, description="its number, from 1")],
        caller: Annotated[Caller, Depends(permitted)],
    ) -> messages.BatchReply:
        """Store a batch, whole or not at all. Batches come in order.

        One that was stored may be sent again, in case its answer was lost: it changes nothing.
        """
        media = media_type(request)
        name = AttemptName.parse(attempt)
        # Before anything is read: what is nobody's, or somebody else's, takes no memory.
        await run_in_threadpool(kinds_of, engine, name, caller.name)
        body = await read_body(request, most=most, seconds=lease)

        def work() -> messages.BatchReply:
            return _store(engine, caller, name, batch, body=body, media=media)

        return await to_thread.run_sync(work, limiter=limiter)

    @router.post(
        "/{attempt}/complete",
        response_model=messages.AttemptOutcome,
        summary="Complete",
        responses=problem_responses(404, 409),
    )
    def complete(
        request: Request,
        attempt: Attempt,
        body: messages.CompleteRequest,
        caller: Annotated[Caller, Depends(permitted)],
    ) -> Response:
        """All is sent. `done` only if it is all there, and enough; safe to repeat.

        A batch that is missing is named, and the attempt goes on.
        """
        answer = _end(engine, request, caller, attempt, how="complete", given=body.model_dump())
        maintenance.run_soon()
        return answer

    @router.post(
        "/{attempt}/fail",
        response_model=messages.AttemptOutcome,
        summary="Fail",
        responses=problem_responses(404, 409),
    )
    def give_up(
        request: Request,
        attempt: Attempt,
        body: messages.FailRequest,
        caller: Annotated[Caller, Depends(permitted)],
    ) -> Response:
        """It cannot be completed. It is tried again later, unless it has failed too often."""
        return _end(engine, request, caller, attempt, how="fail", given=body.model_dump())

    @router.post(
        "/{attempt}/release",
        response_model=messages.AttemptOutcome,
        summary="Give back",
        responses=problem_responses(404, 409),
    )
    def give_back(
        request: Request,
        attempt: Attempt,
        caller: Annotated[Caller, Depends(permitted)],
        body: Annotated[messages.ReleaseRequest | None, Body()] = None,
    ) -> Response:
        """Give it back unfinished: another one may take it at once, and no error is counted."""
        given = (body or messages.ReleaseRequest()).model_dump()
        return _end(engine, request, caller, attempt, how="release", given=given)

    return router


class NothingThere(Exception):
    """There is nothing to claim; so there is no change, and no answer to be kept."""


class Claims:
    """One look at the queue, for a request to claim."""

    def __init__(
        self,
        engine: Engine,
        settings: BaseSettings,
        request: Request,
        caller: Caller,
        wanted: messages.ClaimRequest,
    ) -> None:
        self.engine = engine
        self.settings = settings
        self.request = request
        self.caller = caller
        self.wanted = wanted
        self.lease = settings.getfloat("CATLOG_LEASE")
        self.taken: list[external.LeasedClaim] = []
        self.hopeless: dict[AttemptName, str] = {}

    def answer(self) -> Response | None:
        """What was claimed; None where there is nothing."""
        body = self.wanted.model_dump()
        try:
            answer = change(self.engine, self.request, self.caller, ACTION, self._take, body=body)
        except NothingThere:
            return None
        for name, error in self.hopeless.items():
            fail(self.engine, name, error)
        return answer

    def _take(self, transaction: Transaction) -> Changed:
        wanted = self.wanted
        self.taken, self.hopeless = external.take(
            transaction,
            f"{self.caller.name}/{wanted.worker}",
            refused=_refused(transaction, wanted.operations),
            limit=wanted.limit,
            lease=self.lease,
        )
        if not self.taken and not self.hopeless:
            raise NothingThere
        names = [str(each.claim.attempt) for each in self.taken]
        told = [_told(self.settings, self.lease, each) for each in self.taken]
        return Changed(
            target=" ".join(["attempts", *names]),
            body=messages.ClaimReply(attempts=told),
            detail={"verb": "claim", "worker": wanted.worker, "attempts": names},
        )

    def give_back(self) -> None:
        """Release what was claimed, unless its answer is kept for when the client asks again."""
        if IDEMPOTENCY not in self.request.headers:
            for each in self.taken:
                release(self.engine, each.claim.attempt, error="released: its executor was gone")


def _refused(database: Database, names: list[str]) -> set[UUID]:
    """The external operations that *names* do not ask for. Raises Problem 422."""
    found = external.operations(database)
    ours = [operation for operation in found if operation["executor"] == "external"]
    asked: set[UUID] = set()
    errors = []
    for index, name in enumerate(names):
        ids = {each["id"] for each in ours if name in _names(each)}
        if not ids:
            known = any(name in _names(each) for each in found)
            what = (
                'is run by spiders; declare it with executor = "external"'
                if known
                else "is no operation; write PROVIDER/SCHEME[/OPERATION], as declared"
            )
            errors.append((f"body.operations.{index}", f"{name!a} {what}"))
        asked |= ids
    if errors:
        raise Problem(422, "Not all of these operations can be claimed.", errors=errors)
    return {operation["id"] for operation in ours} - asked


def _names(operation: Any) -> tuple[str, str]:
    scheme = f"{operation['provider']}/{operation['scheme']}"
    return scheme, f"{scheme}/{operation['name']}"


def _told(
    settings: BaseSettings, lease: float, taken: external.LeasedClaim
) -> messages.ClaimedAttempt:
    claim = taken.claim
    return messages.ClaimedAttempt(
        attempt=str(claim.attempt),
        catalog=claim.catalog,
        provider=claim.provider,
        scheme=claim.scheme,
        operation=claim.operation,
        part=claim.part,
        arguments=claim.arguments,
        base_url=base_url_of(settings, claim.provider, claim.base_url),
        mode=claim.mode,
        cursor=taken.cursor or None,
        kinds=[messages.ClaimedKind.model_validate(kind) for kind in claim.kinds],
        lease=lease,
        expires_at=taken.expires_at,
        deadline_at=taken.deadline_at,
        limits=claim.limits,
    )


def _store(
    engine: Engine, caller: Caller, name: AttemptName, number: int, *, body: bytes, media: str
) -> messages.BatchReply:
    kinds = kinds_of(engine, name, caller.name)
    parsed = parse_batch(body, media, kinds)
    # The same records in another form are another batch.
    digest = hashlib.sha256(media.encode())
    digest.update(body)

    with transaction(engine) as tx:
        stored = store_batch(
            tx,
            name,
            caller.name,
            number=number,
            digest=digest.hexdigest(),
            lines=parsed.rows,
            rejected=parsed.rejected,
            rejections=parsed.rejections,
        )
        if stored:
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
        rejections=[
            messages.RejectedItem(of=of, index=index, errors=errors)
            for of, index, errors in parsed.reported
        ],
    )


def _end(
    engine: Engine,
    request: Request,
    caller: Caller,
    attempt: str,
    *,
    how: str,
    given: dict[str, Any],
) -> Response:
    name = AttemptName.parse(attempt)

    def work(transaction: Transaction) -> Changed:
        try:
            ended = external.end(transaction, name, caller.name, how, **given)
        except CursorError as error:
            raise Problem(422, str(error), errors=[("body.cursor", str(error))]) from error
        return Changed(
            target=f"attempt {name}",
            body=messages.AttemptOutcome.model_validate(
                {"outcome": ended.outcome, "error": ended.error}
            ),
            detail={"verb": how, "outcome": ended.outcome, "again": not ended.changed},
        )

    return change(engine, request, caller, ACTION, work, body=given)
