"""Claims of external executors."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from fastapi import Request, Response

from catlog_scrapy.api.auth.callers import Caller
from catlog_scrapy.api.changes import IDEMPOTENCY_HEADER, ChangeResult, run_change
from catlog_scrapy.api.executors import messages
from catlog_scrapy.api.problems import Problem
from catlog_scrapy.api.state import ServerState
from catlog_scrapy.declarations.spiders import base_url_of
from catlog_scrapy.store.queue import executors as external
from catlog_scrapy.store.queue.attempts import AttemptName, fail, release
from catlog_scrapy.store.queue.claim_hints import claim_hints_of
from catlog_scrapy.store.sql import Transaction

ACTION = "attempts:execute"


class NoWork(Exception):
    """Nothing to claim. Raised inside of a change, so that no response is stored."""


class ClaimAttempt:
    """Single look at the queue on behalf of a claim request."""

    def __init__(
        self,
        state: ServerState,
        request: Request,
        caller: Caller,
        claim: messages.ClaimRequest,
    ) -> None:
        self.state = state
        self.request = request
        self.caller = caller
        self.claim = claim
        self.tags: set[str] = set()
        self.claimed: list[external.LeasedClaim] = []
        self.failed: dict[AttemptName, str] = {}

    def run(self) -> Response | None:
        """Claim attempts; return None without work."""
        state, body = self.state, self.claim.model_dump()
        if self.claim.tags:
            # Only the tags of some operation, so that the sets of tags with claim hints are few.
            known = external.operations(state.engine)
            self.tags = set(self.claim.tags) & {tag for found in known for tag in found["tags"]}
        claim_hints_of(state.engine, "external", self.tags).refresh(state.engine)
        try:
            response = run_change(
                state.engine, self.request, self.caller, ACTION, self._take, body=body
            )
        except NoWork:
            return None
        # After the claim's transaction: to fail an attempt locks its catalog first.
        for name, error in self.failed.items():
            fail(state.engine, name, error)
        return response

    def undo(self) -> None:
        """Release the claimed attempts, unless the client can ask again for the stored response."""
        if IDEMPOTENCY_HEADER not in self.request.headers:
            for claimed in self.claimed:
                release(
                    self.state.engine,
                    claimed.claim.attempt,
                    error="released: its executor disconnected",
                )

    def _take(self, tx: Transaction) -> ChangeResult:
        claim = self.claim
        self.claimed, self.failed = external.take(
            tx,
            f"{self.caller.name}/{claim.worker}",
            refused=_other_operations(external.operations(tx), claim.operations),
            tags=self.tags,
            limit=claim.limit,
            lease=self.state.lease_s,
        )
        if not self.claimed and not self.failed:
            raise NoWork
        names = [str(claimed.claim.attempt) for claimed in self.claimed]
        return ChangeResult(
            target=" ".join(["attempts", *names]),
            body=messages.ClaimReply(attempts=list(map(self._message, self.claimed))),
            detail={"verb": "claim", "worker": claim.worker, "attempts": names},
        )

    def _message(self, claimed: external.LeasedClaim) -> messages.ClaimedAttempt:
        claim = claimed.claim
        return messages.ClaimedAttempt(
            attempt=str(claim.attempt),
            catalog=claim.catalog,
            provider=claim.provider,
            scheme=claim.scheme,
            operation=claim.operation,
            part=claim.part,
            arguments=claim.arguments,
            base_url=base_url_of(self.state.settings, claim.provider, claim.base_url),
            mode=claim.mode,
            cursor=claimed.cursor or None,
            kinds=[messages.ClaimedKind.model_validate(kind) for kind in claim.kinds],
            lease=self.state.lease_s,
            expires_at=claimed.expires_at,
            deadline_at=claimed.deadline_at,
            limits=claim.limits,
        )


def _other_operations(operations: Sequence[Mapping[str, Any]], names: list[str]) -> set[UUID]:
    """Return the ids of the external operations that *names* do not name. Raises Problem 422."""
    claimable = [operation for operation in operations if operation["executor"] == "external"]
    wanted: set[UUID] = set()
    errors = []
    for index, name in enumerate(names):
        ids = {operation["id"] for operation in claimable if name in _names(operation)}
        if not ids:
            is_known = any(name in _names(operation) for operation in operations)
            message = (
                'is run by spiders; declare the operation with executor = "external"'
                if is_known
                else "is not a declared operation; use PROVIDER/SCHEME or PROVIDER/SCHEME/OPERATION"
            )
            errors.append((f"body.operations.{index}", f"{name!a} {message}"))
        wanted |= ids
    if errors:
        raise Problem(422, "not all of the operations can be claimed", errors=errors)
    return {operation["id"] for operation in claimable} - wanted


def _names(operation: Mapping[str, Any]) -> tuple[str, str]:
    scheme = f"{operation['provider']}/{operation['scheme']}"
    return scheme, f"{scheme}/{operation['name']}"
