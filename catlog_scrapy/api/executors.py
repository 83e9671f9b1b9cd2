"""Executors outside of this project: they claim attempts over HTTP, and bring results."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeVar
from uuid import UUID

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Body, Depends, FastAPI, Path, Query, Request
from fastapi.concurrency import run_in_threadpool
from scrapy.settings import BaseSettings
from sqlalchemy import Engine

from catlog_scrapy.api import attempts as said
from catlog_scrapy.api.access import Access, Caller
from catlog_scrapy.api.batches import check_batch, media_type, read_body
from catlog_scrapy.api.problems import Problem, documented
from catlog_scrapy.api.tending import Tending
from catlog_scrapy.declarations.spiders import base_url_of
from catlog_scrapy.scheduling.cursor import CursorError
from catlog_scrapy.store import external
from catlog_scrapy.store.attempts import AttemptName, fail
from catlog_scrapy.store.audit import note
from catlog_scrapy.store.transactions import Transaction, together

T = TypeVar("T")

PERMISSION = ("attempts", "execute")
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
    """The routes under `/attempts`. While the server runs, it tends: see `Tending`."""
    permitted = access.permitted(*PERMISSION)
    lease = settings.getfloat("CATLOG_LEASE")
    poll = settings.getfloat("CATLOG_POLL")
    most = settings.getint("CATLOG_API_BATCH")
    tending = Tending(engine, lease=lease, poll=poll)
    limiter = CapacityLimiter(BATCHES_AT_ONCE)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        tending.start()
        yield
        await asyncio.to_thread(tending.end)

    router = APIRouter(
        prefix="/attempts",
        tags=["executors"],
        lifespan=lifespan,
        responses=documented(401, 403, 422),
    )

    @router.post("/claim", summary="Claim attempts")
    async def claim(
        request: Request,
        wanted: said.ClaimRequest,
        caller: Annotated[Caller, Depends(permitted)],
    ) -> said.Claimed:
        """Take what is queued of the named operations, of one provider at a time.

        With `wait` the answer comes as soon as there is something, and empty after so many seconds.
        What was claimed and never reached its executor is given to another one after its lease.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + wanted.wait
        while True:
            taken = await run_in_threadpool(_take, engine, caller, wanted, lease)
            if await request.is_disconnected():
                await run_in_threadpool(_give_back, engine, caller, taken)
                return said.Claimed(attempts=[])
            if taken or loop.time() >= until:
                return said.Claimed(attempts=[_told(settings, lease, each) for each in taken])
            await asyncio.sleep(max(0.0, min(poll, until - loop.time())))

    @router.post("/{attempt}/heartbeat", summary="Keep an attempt", responses=documented(404))
    def heartbeat(
        attempt: Attempt, caller: Annotated[Caller, Depends(permitted)]
    ) -> said.Heartbeat:
        """Renew the lease: every third of it is about right. Any answer but `go` means: stop."""
        answer, expires_at = external.renew(engine, AttemptName.parse(attempt), caller.name, lease)
        return said.Heartbeat.model_validate({"answer": answer, "expires_at": expires_at})

    @router.post(
        "/{attempt}/results",
        summary="Send a batch of results",
        responses=documented(404, 409, 415),
        openapi_extra={"requestBody": said.RESULTS},
    )
    async def results(
        request: Request,
        attempt: Attempt,
        batch: Annotated[int, Query(ge=1, le=MOST_NUMBER, description="its number, from 1")],
        caller: Annotated[Caller, Depends(permitted)],
    ) -> said.Stored:
        """Store a batch, whole or not at all. Batches come in order.

        One that was stored may be sent again, in case its answer was lost: it changes nothing.
        """
        media = media_type(request)
        body = await read_body(request, most=most, seconds=lease)

        def work() -> said.Stored:
            return _store(engine, caller, AttemptName.parse(attempt), batch, body=body, media=media)

        return await to_thread.run_sync(work, limiter=limiter)

    @router.post("/{attempt}/complete", summary="Complete", responses=documented(404, 409))
    def complete(
        attempt: Attempt,
        body: said.Complete,
        caller: Annotated[Caller, Depends(permitted)],
    ) -> said.Outcome:
        """All is sent. `done` only if it is all there, and enough; safe to repeat.

        A batch that is missing is named, and the attempt goes on.
        """
        ended = _end(engine, caller, attempt, "complete", **body.model_dump())
        tending.soon()
        return ended

    @router.post("/{attempt}/fail", summary="Fail", responses=documented(404, 409))
    def give_up(
        attempt: Attempt,
        body: said.Fail,
        caller: Annotated[Caller, Depends(permitted)],
    ) -> said.Outcome:
        """It cannot be completed. It is tried again later, unless it has failed too often."""
        return _end(engine, caller, attempt, "fail", **body.model_dump())

    @router.post("/{attempt}/release", summary="Give back", responses=documented(404, 409))
    def release(
        attempt: Attempt,
        caller: Annotated[Caller, Depends(permitted)],
        body: Annotated[said.Release | None, Body()] = None,
    ) -> said.Outcome:
        """Give it back unfinished: another one may take it at once, and no error is counted."""
        return _end(engine, caller, attempt, "release", **(body or said.Release()).model_dump())

    return router


def _audited(
    engine: Engine,
    caller: Caller,
    work: Callable[[Transaction], tuple[T, list[tuple[str, dict[str, Any]]]]],
) -> T:
    """Do *work* in one transaction with an audit row for each change that it returns besides."""
    with together(engine) as transaction:
        result, changes = work(transaction)
        for target, detail in changes:
            note(
                transaction,
                actor=caller.name,
                role=caller.role,
                action=":".join(PERMISSION),
                target=target,
                address=caller.address,
                detail=detail,
            )
    return result


def _take(
    engine: Engine, caller: Caller, wanted: said.ClaimRequest, lease: float
) -> list[external.Taken]:
    refused = _refused(engine, wanted.operations)
    node = f"{caller.name}/{wanted.worker}"

    def work(transaction: Transaction) -> tuple[Any, list[tuple[str, dict[str, Any]]]]:
        taken, hopeless = external.take(
            transaction, node, refused=refused, limit=wanted.limit, lease=lease
        )
        changes = [
            (f"attempt {each.claim.attempt}", {"verb": "claim", "worker": wanted.worker})
            for each in taken
        ]
        return (taken, hopeless), changes

    taken: list[external.Taken]
    taken, hopeless = _audited(engine, caller, work)
    for name, error in hopeless.items():
        fail(engine, name, error)
    return taken


def _refused(engine: Engine, names: list[str]) -> set[UUID]:
    """The external operations that *names* do not ask for. Raises Problem 422."""
    found = external.operations(engine)
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


def _give_back(engine: Engine, caller: Caller, taken: list[external.Taken]) -> None:
    for each in taken:
        _end(engine, caller, str(each.claim.attempt), "release", error="its executor was gone")


def _told(settings: BaseSettings, lease: float, taken: external.Taken) -> said.ClaimedAttempt:
    claim = taken.claim
    return said.ClaimedAttempt(
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
        kinds=[said.Kind.model_validate(kind) for kind in claim.kinds],
        lease=lease,
        expires_at=taken.expires_at,
        deadline_at=taken.deadline_at,
        limits=claim.limits,
    )


def _store(
    engine: Engine, caller: Caller, name: AttemptName, number: int, *, body: bytes, media: str
) -> said.Stored:
    kinds = external.kinds_of(engine, name, caller.name)
    checked = check_batch(body, media, kinds)
    # The same records in another form are another batch.
    digest = hashlib.sha256(media.encode())
    digest.update(body)

    def work(transaction: Transaction) -> Any:
        stored = external.store_batch(
            transaction,
            name,
            caller.name,
            number=number,
            digest=digest.hexdigest(),
            lines=checked.rows,
            rejected=checked.rejected,
            rejections=checked.rejections,
        )
        detail = {"verb": "results", "batch": number, "accepted": len(checked.rows)}
        return None, [(f"attempt {name}", detail)] if stored else []

    _audited(engine, caller, work)
    return said.Stored(
        batch=number,
        accepted=len(checked.rows),
        rejected=checked.rejected,
        rejections=[
            said.Rejection(of=of, index=index, errors=errors) for of, index, errors in checked.told
        ],
    )


def _end(engine: Engine, caller: Caller, attempt: str, how: str, **given: Any) -> said.Outcome:
    name = AttemptName.parse(attempt)

    def work(transaction: Transaction) -> Any:
        ended = external.end(transaction, name, caller.name, how, **given)
        detail = {"verb": how, "outcome": ended.outcome}
        return ended, [(f"attempt {name}", detail)] if ended.changed else []

    try:
        ended: external.Ended = _audited(engine, caller, work)
    except CursorError as error:
        raise Problem(422, str(error), errors=[("body.cursor", str(error))]) from error
    return said.Outcome.model_validate({"outcome": ended.outcome, "error": ended.error})
