"""Authentication and authorization of requests."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
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
from catlog_scrapy.declarations.roles import covers, intersect
from catlog_scrapy.store.access.keys import KEY_PREFIX, use_key
from catlog_scrapy.store.access.users import enabled_user

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


class Access:
    """Identifies callers by token or key, and refuses actions that their role does not permit.

    *roles* maps each role to its permissions. *passwords* hashes passwords.
    """

    def __init__(
        self,
        engine: Engine,
        roles: Mapping[str, frozenset[str]],
        settings: BaseSettings,
        *,
        passwords: Passwords | None = None,
    ) -> None:
        self.engine = engine
        self.roles = roles
        self.signer = TokenSigner(engine, settings)
        self.passwords = passwords or Passwords()
        # A single SELECT needs no BEGIN and COMMIT.
        self._autocommit_engine = engine.execution_options(isolation_level="AUTOCOMMIT")

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

    def _authenticate(self, request: Request) -> Caller:
        scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
        token = bearer.strip() if scheme.lower() == "bearer" else ""
        credentials = token or request.headers.get("X-API-Key")
        if not credentials:
            raise unauthorized(NO_CREDENTIALS)
        if not token or credentials.startswith(KEY_PREFIX):
            return self._key_holder(credentials, client_address(request))
        return self._user(credentials, client_address(request))

    def _user(self, token: str, address: str) -> Caller:
        try:
            token_ids = self.signer.read(token, "access")
        except InvalidToken as error:
            raise unauthorized(str(error), "invalid_token") from error
        user = enabled_user(self._autocommit_engine, token_ids.user_id)
        if user is None:
            raise unauthorized(DISABLED_USER, "invalid_token")
        permissions = self._permissions(user.role)
        return Caller(f"user:{user.name}", user.role, permissions, address)

    def _key_holder(self, key: str, address: str) -> Caller:
        found = use_key(self._autocommit_engine, key)
        if found is None:
            raise unauthorized(INVALID_KEY, "invalid_token")
        permissions = self._permissions(found.role)
        if found.scopes is not None:
            permissions = intersect(permissions, found.scopes)
        return Caller(f"key:{found.name}", found.role, permissions, address)

    def _permissions(self, role: str) -> frozenset[str]:
        return self.roles.get(role, frozenset())


def server_access(request: Request) -> Access:
    """Return the access control of the server that received *request*."""
    access: Access = request.app.state.access
    return access


def permission(resource: str, action: str) -> Callable[..., Caller]:
    """Return a dependency: the caller, who has the permission `resource:action`.

    The dependency raises Problem 401 or 403.
    """

    def require_permission(
        request: Request,
        access: Annotated[Access, Depends(server_access)],
        _: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
        __: Annotated[str | None, Depends(_api_key)],
    ) -> Caller:
        return access.caller(request, resource, action)

    return require_permission


def client_address(request: Request) -> str:
    """Return the client's address; empty for a client on a Unix socket."""
    return request.client.host if request.client else ""
