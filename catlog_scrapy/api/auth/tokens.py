"""Routes that exchange a password for tokens, and a refresh token for the next tokens."""

import math
from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import AfterValidator, BaseModel, Field

from catlog_scrapy.api.auth.callers import Access, ServerAccess, client_address
from catlog_scrapy.api.auth.jwt import InvalidToken, TokenIds
from catlog_scrapy.api.auth.passwords import (
    MAX_PASSWORD_BYTES,
    TooManyLogins,
    is_valid_password_text,
)
from catlog_scrapy.api.auth.unauthorized import (
    USED_REFRESH_TOKEN,
    WRONG_PASSWORD,
    unauthorized,
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

# The audit never stores unknown user names: people type passwords into the name field.
UNKNOWN_USER = "unknown user"

router = APIRouter(tags=["tokens"])


def _valid_text(text: str) -> str:
    if not is_valid_password_text(text):
        raise ValueError(f"should be text of at most {MAX_PASSWORD_BYTES} bytes, without U+0000")
    return text


class Credentials(BaseModel):
    """User name and password."""

    username: Annotated[str, Field(min_length=1, max_length=150), AfterValidator(_valid_text)] = (
        Field(description="Name of a user, from `scrapy user add`.", examples=["alice"])
    )
    password: Annotated[
        str, Field(min_length=1, max_length=MAX_PASSWORD_BYTES), AfterValidator(_valid_text)
    ] = Field(description="Password of the user.", examples=["correct horse battery staple"])


class RefreshRequest(BaseModel):
    """Refresh token to exchange or to revoke."""

    refresh: str = Field(
        description="A refresh token.", min_length=1, max_length=4096, examples=["eyJhbGciOi..."]
    )


class TokenPair(BaseModel):
    """Access token and refresh token."""

    access: str = Field(
        description="Token to send with each request; valid for minutes.",
        examples=["eyJhbGciOi..."],
    )
    refresh: str = Field(
        description="Token to exchange, once, for the next pair; valid for days.",
        examples=["eyJhbGciOi..."],
    )


@router.post(
    "/token",
    response_description="A pair of tokens.",
    summary="Log in",
    responses=problem_responses(401, 422, 429),
)
def log_in(
    credentials: Credentials, request: Request, response: Response, access: ServerAccess
) -> TokenPair:
    """Exchange a user name and a password for a pair of tokens.

    After several failed log-ins in a row each further log-in has to wait longer.
    """
    response.headers["Cache-Control"] = "no-store"
    return _token_pair(access, _issue_token(access, credentials, client_address(request)))


@router.post(
    "/token/refresh",
    response_description="The next pair of tokens.",
    summary="Exchange a refresh token",
    responses=problem_responses(401, 422),
)
def refresh(
    body: RefreshRequest, request: Request, response: Response, access: ServerAccess
) -> TokenPair:
    """Exchange a refresh token for the next pair of tokens.

    A refresh token that comes a second time counts as stolen: the server revokes all refresh
    tokens of its log-in.
    """
    response.headers["Cache-Control"] = "no-store"
    token = _read_refresh_token(access, body)
    return _token_pair(access, _exchange(access, token, client_address(request)))


@router.post(
    "/token/revoke",
    status_code=204,
    response_description="The refresh tokens of the log-in are revoked.",
    summary="Log out",
    responses=problem_responses(401, 422),
)
def revoke(body: RefreshRequest, request: Request, access: ServerAccess) -> None:
    """Revoke all refresh tokens of a log-in. Safe to repeat.

    Access tokens stay valid until they expire, which takes minutes.
    """
    token = _read_refresh_token(access, body, allow_expired=True)
    with transaction(access.engine) as tx:
        revoked = revoke_family(tx, token.id, token.user_id)
        if revoked:
            record_audit(
                tx,
                actor=f"user:{revoked.user}",
                role=revoked.role,
                action="tokens:revoke",
                target=f"family {revoked.family}",
                address=client_address(request),
            )


def _token_pair(access: Access, issued: IssuedToken) -> TokenPair:
    return TokenPair(
        access=access.signer.access_token(issued), refresh=access.signer.refresh_token(issued)
    )


def _read_refresh_token(
    access: Access, body: RefreshRequest, *, allow_expired: bool = False
) -> TokenIds:
    try:
        return access.signer.read(body.refresh, "refresh", allow_expired=allow_expired)
    except InvalidToken as error:
        raise unauthorized(str(error)) from error


def _issue_token(access: Access, credentials: Credentials, address: str) -> IssuedToken:
    name, password = credentials.username, credentials.password
    new_hash = ""
    try:
        with access.passwords.slot():
            if wait_s := math.ceil(begin_login(access.engine, name, address)):
                raise Problem(
                    429,
                    f"too many failed log-ins; try again in {wait_s} s",
                    headers={"Retry-After": str(wait_s)},
                )
            user = find_user(access.engine, name)
            hash_ = user.password_hash if user else None
            is_match = access.passwords.match(password, hash_)
            if hash_ and is_match:
                new_hash = access.passwords.rehash_if_outdated(password, hash_)
    except TooManyLogins as error:
        raise Problem(
            503, "too many concurrent log-ins; try again", headers={"Retry-After": "1"}
        ) from error
    token = None
    with transaction(access.engine) as tx:
        if user and is_match:
            token = issue_first_token(
                tx,
                user.id,
                verified=user.password_hash,
                renewed=new_hash,
                seconds=access.signer.refresh_lifetime_s,
            )
        if token:
            record_login(tx, name, address)
        record_audit(
            tx,
            actor=f"user:{name}" if user else UNKNOWN_USER,
            role=user.role if user else "",
            action="tokens:create" if token else "tokens:refuse",
            target=f"family {token.family}" if token else "",
            address=address,
        )
    if token is None:
        raise unauthorized(WRONG_PASSWORD)
    return token


def _exchange(access: Access, token: TokenIds, address: str) -> IssuedToken:
    with transaction(access.engine) as tx:
        found = replace_token(tx, token.id, token.user_id, access.signer.refresh_lifetime_s)
        if isinstance(found, RevokedFamily):
            record_audit(
                tx,
                actor=f"user:{found.user}",
                role=found.role,
                action="tokens:revoke",
                target=f"family {found.family}",
                address=address,
                detail={"reason": "a replaced refresh token was used again"},
            )
    if not isinstance(found, IssuedToken):
        raise unauthorized(USED_REFRESH_TOKEN)
    return found
