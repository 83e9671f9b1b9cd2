"""Authentication and authorization of requests."""

import math
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from scrapy.settings import BaseSettings
from sqlalchemy import Engine

from catlog_scrapy.api.auth.jwt import InvalidToken, TokenSigner
from catlog_scrapy.api.auth.passwords import Passwords
from catlog_scrapy.api.auth.unauthorized import (
    DISABLED_USER,
    INVALID_KEY,
    NO_CREDENTIALS,
    unauthorized,
)
from catlog_scrapy.api.problems import Problem
from catlog_scrapy.db.statement_pool import StatementPool
from catlog_scrapy.declarations.roles import covers, intersect
from catlog_scrapy.store.access.keys import KEY_PREFIX, key_proof, use_key
from catlog_scrapy.store.access.users import enabled_user, user_proof
from catlog_scrapy.store.sql import Condition

# All remembered callers are forgotten when there are more.
MAX_REMEMBERED_CALLERS = 1000

_bearer = HTTPBearer(
    scheme_name="bearer",
    description="An access token from `POST /api/v1/token`, or an API key.",
    auto_error=False,
)
_api_key = APIKeyHeader(
    name="X-API-Key",
    scheme_name="key",
    description="An API key from `scrapy key add`.",
    auto_error=False,
)


@dataclass(frozen=True)
class Caller:
    """Authenticated sender of a request.

    `name` is `user:NAME` or `key:NAME`. `permissions` are `resource:action`; `*` stands for any
    resource or action. `address` is the client's address.
    """

    name: str
    role: str
    permissions: frozenset[str]
    address: str

    def may(self, resource: str, action: str) -> bool:
        """Return whether the caller has the permission `resource:action`."""
        return covers(self.permissions, f"{resource}:{action}")


@dataclass(frozen=True)
class RememberedCaller:
    """Caller of an earlier request with the same credentials, which are valid if `proof` is true.

    `caller.address` is that of the earlier request. `until` is Unix time.
    """

    caller: Caller
    proof: Condition
    until: float


class Access:
    """Identifies callers by token or key, and refuses actions that their role does not permit.

    *roles* maps each role to its permissions. *passwords* hashes passwords. With *statements* a
    caller of an earlier request is confirmed without a thread.
    """

    def __init__(
        self,
        engine: Engine,
        roles: Mapping[str, frozenset[str]],
        settings: BaseSettings,
        *,
        passwords: Passwords | None = None,
        statements: StatementPool | None = None,
    ) -> None:
        self.engine = engine
        self.statements = statements
        self.roles = roles
        self.signer = TokenSigner(engine, settings)
        self.passwords = passwords or Passwords()
        # A single SELECT needs no BEGIN and COMMIT.
        self._autocommit_engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        # By the hash of their credentials.
        self._remembered: dict[bytes, RememberedCaller] = {}

    def recall(self, request: Request, resource: str, action: str) -> RememberedCaller | None:
        """Return the caller of an earlier request who had the permission `resource:action`.

        The key or user may have changed since: the response depends on the caller's proof, which
        is to be read in the statement that reads the rows.
        """
        found = self._remembered.get(_credentials_hash(*_credentials(request)))
        is_valid = found and time.time() < found.until and found.caller.may(resource, action)
        return found if is_valid else None

    async def find_caller(self, request: Request, resource: str, action: str) -> Caller:
        """Return the caller as `caller` does, without blocking the event loop."""
        remembered = self.recall(request, resource, action)
        if self.statements and remembered:
            proof = remembered.proof
            [(is_proven,)] = await self.statements.rows(f"SELECT {proof.sql}", proof.values)
            if is_proven:
                return replace(remembered.caller, address=client_address(request))
        return await run_in_threadpool(self.caller, request, resource, action)

    def caller(self, request: Request, resource: str, action: str) -> Caller:
        """Return the caller, who has the permission `resource:action`. Raises Problem 401, 403."""
        caller = self._authenticate(request)
        if caller.may(resource, action):
            return caller
        role_permissions = self.roles.get(caller.role, frozenset())
        # The scopes of a key may be narrower than its role.
        role_permits = covers(role_permissions, f"{resource}:{action}")
        subject = "this key" if role_permits else f"the role {caller.role}"
        raise Problem(403, f"{subject} lacks the permission {resource}:{action}")

    def _remember(self, credentials_hash: bytes, found: RememberedCaller) -> Caller:
        if len(self._remembered) >= MAX_REMEMBERED_CALLERS:
            self._remembered.clear()
        self._remembered[credentials_hash] = found
        return found.caller

    def _authenticate(self, request: Request) -> Caller:
        credentials, is_key = _credentials(request)
        if not credentials:
            raise unauthorized(NO_CREDENTIALS)
        credentials_hash = _credentials_hash(credentials, is_key)
        self._remembered.pop(credentials_hash, None)
        address = client_address(request)
        found = (
            self._key_holder(credentials, address) if is_key else self._user(credentials, address)
        )
        return self._remember(credentials_hash, found)

    def _user(self, token: str, address: str) -> RememberedCaller:
        try:
            token_ids = self.signer.read(token, "access")
        except InvalidToken as error:
            raise unauthorized(str(error), "invalid_token") from error
        user = enabled_user(self._autocommit_engine, token_ids.user_id)
        if user is None:
            raise unauthorized(DISABLED_USER, "invalid_token")
        permissions = self._permissions(user.role)
        caller = Caller(f"user:{user.name}", user.role, permissions, address)
        return RememberedCaller(caller, user_proof(user), token_ids.expires_at)

    def _key_holder(self, key: str, address: str) -> RememberedCaller:
        found = use_key(self._autocommit_engine, key)
        if found is None:
            raise unauthorized(INVALID_KEY, "invalid_token")
        permissions = self._permissions(found.role)
        if found.scopes is not None:
            permissions = intersect(permissions, found.scopes)
        caller = Caller(f"key:{found.name}", found.role, permissions, address)
        return RememberedCaller(caller, key_proof(key, found), math.inf)

    def _permissions(self, role: str) -> frozenset[str]:
        return self.roles.get(role, frozenset())


def _credentials(request: Request) -> tuple[str, bool]:
    """Return the credentials of a request, empty without any, and whether they are a key."""
    scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
    token = bearer.strip() if scheme.lower() == "bearer" else ""
    if token:
        return token, token.startswith(KEY_PREFIX)
    return request.headers.get("X-API-Key", ""), True


def _credentials_hash(credentials: str, is_key: bool) -> bytes:
    return sha256(f"{is_key:d}{credentials}".encode("utf-8", "surrogatepass")).digest()


def server_access(request: Request) -> Access:
    """Return the access control of the server that received *request*."""
    access: Access = request.app.state.access
    return access


# FastAPI runs a dependency that is not asynchronous in a thread.
async def _server_access(request: Request) -> Access:
    return server_access(request)


ServerAccess = Annotated[Access, Depends(_server_access)]


def permission(resource: str, action: str) -> Callable[..., Coroutine[Any, Any, Caller]]:
    """Return a dependency: the caller, who has the permission `resource:action`.

    The dependency raises Problem 401 or 403.
    """

    async def require_permission(
        request: Request,
        _: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
        __: Annotated[str | None, Depends(_api_key)],
    ) -> Caller:
        return await server_access(request).find_caller(request, resource, action)

    return require_permission


def client_address(request: Request) -> str:
    """Return the client's address; empty for a client on a Unix socket."""
    return request.client.host if request.client else ""
