"""Logging in: a password for a pair of tokens, a refresh token for the next pair."""

import math
from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import AfterValidator, BaseModel, Field

from catlog_scrapy.api.auth.callers import Access, address_of
from catlog_scrapy.api.auth.jwt import Token, Unusable
from catlog_scrapy.api.auth.passwords import (
    MAX_PASSWORD_BYTES,
    TooManyLogins,
    is_valid_password_text,
)
from catlog_scrapy.api.problems import Problem, problem_responses
from catlog_scrapy.store.access.audit import record_audit
from catlog_scrapy.store.access.logins import begin_login, record_login
from catlog_scrapy.store.access.tokens import (
    IssuedToken,
    RevokedFamily,
    issue_first_token,
    replace_token,
    revoke_family,
)
from catlog_scrapy.store.access.users import find_user
from catlog_scrapy.store.sql import transaction

# Of names that nobody has the audit keeps none: some type their password there.
NOBODY = "unknown user"
WRONG = "no enabled user has this name and password."


def _usable(text: str) -> str:
    if not is_valid_password_text(text):
        raise ValueError(f"should be text of at most {MAX_PASSWORD_BYTES} bytes, without U+0000")
    return text


class Credentials(BaseModel):
    """Who logs in."""

    username: Annotated[str, Field(min_length=1, max_length=150), AfterValidator(_usable)] = Field(
        examples=["alice"]
    )
    password: Annotated[
        str, Field(min_length=1, max_length=MAX_PASSWORD_BYTES), AfterValidator(_usable)
    ] = Field(examples=["correct horse battery staple"])


class RefreshRequest(BaseModel):
    """A refresh token."""

    refresh: str = Field(min_length=1, max_length=4096, examples=["eyJhbGciOi..."])


class TokenPair(BaseModel):
    """`access` goes with each request; `refresh` is exchanged, once, for the next pair."""

    access: str = Field(examples=["eyJhbGciOi..."])
    refresh: str = Field(examples=["eyJhbGciOi..."])


def tokens(access: Access) -> APIRouter:
    """`/token/`, `/token/refresh/` and `/token/revoke/`."""
    router = APIRouter(tags=["tokens"])

    @router.post("/token", summary="Log in", responses=problem_responses(401, 422, 429))
    def log_in(credentials: Credentials, request: Request, response: Response) -> TokenPair:
        """A pair of tokens for a name and a password. Failures in a row make the next one wait."""
        response.headers["Cache-Control"] = "no-store"
        return _pair(access, _log_in(access, credentials, address_of(request)))

    @router.post(
        "/token/refresh", summary="Exchange a token", responses=problem_responses(401, 422)
    )
    def refresh(body: RefreshRequest, request: Request, response: Response) -> TokenPair:
        """The next pair of tokens. One that was exchanged before is taken for stolen: all that
        came of its log-in are revoked."""
        response.headers["Cache-Control"] = "no-store"
        return _pair(access, _exchange(access, _read(access, body), address_of(request)))

    @router.post(
        "/token/revoke",
        status_code=204,
        summary="Log out",
        responses=problem_responses(401, 422),
    )
    def revoke(body: RefreshRequest, request: Request) -> None:
        """All refresh tokens of a log-in end, be it for the second time. What access it gave ends
        by itself, within minutes."""
        token = _read(access, body, expired=True)
        with transaction(access.engine) as tx:
            revoked = revoke_family(tx, token.id, token.user_id)
            if revoked:
                record_audit(
                    tx,
                    actor=f"user:{revoked.user}",
                    role=revoked.role,
                    action="tokens:revoke",
                    target=f"family {revoked.family}",
                    address=address_of(request),
                )

    return router


def _pair(access: Access, token: IssuedToken) -> TokenPair:
    return TokenPair(access=access.signer.access(token), refresh=access.signer.refresh(token))


def _read(access: Access, body: RefreshRequest, *, expired: bool = False) -> Token:
    try:
        return access.signer.read(body.refresh, "refresh", expired=expired)
    except Unusable as error:
        raise _refused(f"{error}.") from error


def _refused(detail: str) -> Problem:
    return Problem(401, detail, headers={"WWW-Authenticate": 'Bearer realm="catlog"'})


def _log_in(access: Access, credentials: Credentials, address: str) -> IssuedToken:
    name, password = credentials.username, credentials.password
    try:
        with access.passwords.slot():
            wait = begin_login(access.engine, name, address)
            if wait:
                raise Problem(
                    429,
                    f"too many failed log-ins; try again in {math.ceil(wait)} s.",
                    headers={"Retry-After": str(math.ceil(wait))},
                )
            user = find_user(access.engine, name)
            hash_ = user.password_hash if user else None
            right = access.passwords.match(password, hash_)
            renewed = (
                access.passwords.rehash_if_outdated(password, hash_) if hash_ and right else ""
            )
    except TooManyLogins as error:
        raise Problem(
            503, "too many log in just now; try again.", headers={"Retry-After": "1"}
        ) from error
    token = None
    with transaction(access.engine) as tx:
        if user and right:
            token = issue_first_token(
                tx,
                user.id,
                verified=user.password_hash,
                renewed=renewed,
                seconds=access.signer.refresh_seconds,
            )
        if token:
            record_login(tx, name, address)
        record_audit(
            tx,
            actor=f"user:{name}" if user else NOBODY,
            role=user.role if user else "",
            action="tokens:create" if token else "tokens:refuse",
            target=f"family {token.family}" if token else "",
            address=address,
        )
    if token is None:
        raise _refused(WRONG)
    return token


def _exchange(access: Access, token: Token, address: str) -> IssuedToken:
    with transaction(access.engine) as tx:
        found = replace_token(tx, token.id, token.user_id, access.signer.refresh_seconds)
        if isinstance(found, RevokedFamily):
            record_audit(
                tx,
                actor=f"user:{found.user}",
                role=found.role,
                action="tokens:revoke",
                target=f"family {found.family}",
                address=address,
                detail={"reason": "a refresh token that had been replaced was used again"},
            )
    if not isinstance(found, IssuedToken):
        raise _refused("the refresh token does not count any more; log in again.")
    return found
