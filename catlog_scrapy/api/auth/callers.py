"""Who asks, and whether they may."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from scrapy.settings import BaseSettings
from sqlalchemy import Engine

from catlog_scrapy.api.auth.jwt import Signer, Unusable
from catlog_scrapy.api.auth.passwords import Passwords
from catlog_scrapy.api.problems import Problem
from catlog_scrapy.declarations.roles import covers, intersect
from catlog_scrapy.store.access.keys import KEY_PREFIX, use_key
from catlog_scrapy.store.access.users import enabled_user

_bearer = HTTPBearer(
    scheme_name="bearer",
    description="An access token, from `POST /api/v1/token/`, or an API key.",
    auto_error=False,
)
_api_key = APIKeyHeader(
    name="X-API-Key",
    scheme_name="key",
    description="An API key, from `scrapy key add`.",
    auto_error=False,
)


@dataclass(frozen=True)
class Caller:
    """Who asks: `name` is `user:NAME` or `key:NAME`, `address` the client's.

    `permissions` are `resource:action`, with `*` for any of either.
    """

    name: str
    role: str
    permissions: frozenset[str]
    address: str

    def may(self, resource: str, action: str) -> bool:
        """Whether they may do *action* to *resource*."""
        return covers(self.permissions, f"{resource}:{action}")


class Access:
    """Tells who asks, by token or key, and refuses what their role lacks.

    *roles* are the permissions of each role. *passwords* says how costly hashes are.
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
        self.signer = Signer(engine, settings)
        self.passwords = passwords or Passwords()
        # One statement a request needs no BEGIN and no COMMIT around it.
        self._reading = engine.execution_options(isolation_level="AUTOCOMMIT")

    def permitted(self, resource: str, action: str) -> Callable[..., Caller]:
        """A dependency: the caller, who may do *action* to *resource*. Raises Problem 401, 403."""

        def caller(
            request: Request,
            _: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
            __: Annotated[str | None, Depends(_api_key)],
        ) -> Caller:
            return self.caller(request, resource, action)

        return caller

    def caller(self, request: Request, resource: str, action: str) -> Caller:
        """Who sent *request*, who may do *action* to *resource*. Raises Problem 401, 403."""
        asking = self._caller(request)
        if not asking.may(resource, action):
            # A role that may is held back by its key's scopes.
            lacking = self.roles.get(asking.role, frozenset())
            who = "this key" if covers(lacking, f"{resource}:{action}") else asking.role
            raise Problem(403, f"{who} lacks the permission {resource}:{action}.")
        return asking

    def _caller(self, request: Request) -> Caller:
        scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
        token = bearer.strip() if scheme.lower() == "bearer" else ""
        credentials = token or request.headers.get("X-API-Key")
        if not credentials:
            raise _unauthorized("a token or a key is needed")
        if not token or credentials.startswith(KEY_PREFIX):
            return self._holder(credentials, address_of(request))
        return self._user(credentials, address_of(request))

    def _user(self, token: str, address: str) -> Caller:
        try:
            read = self.signer.read(token, "access")
        except Unusable as error:
            raise _unauthorized(str(error), "invalid_token") from error
        user = enabled_user(self._reading, read.user_id)
        if user is None:
            raise _unauthorized("the user is disabled or gone", "invalid_token")
        return Caller(f"user:{user.name}", user.role, self._of(user.role), address)

    def _holder(self, key: str, address: str) -> Caller:
        found = use_key(self._reading, key)
        if found is None:
            raise _unauthorized("the key is unknown, revoked or expired", "invalid_token")
        permissions = self._of(found.role)
        if found.scopes is not None:
            permissions = intersect(permissions, found.scopes)
        return Caller(f"key:{found.name}", found.role, permissions, address)

    def _of(self, role: str) -> frozenset[str]:
        return self.roles.get(role, frozenset())


def address_of(request: Request) -> str:
    """The client's address; none where it came through a socket of this machine."""
    return request.client.host if request.client else ""


def _unauthorized(detail: str, error: str | None = None) -> Problem:
    challenge = 'Bearer realm="catlog"' + (f', error="{error}"' if error else "")
    return Problem(401, f"{detail}.", headers={"WWW-Authenticate": challenge})
