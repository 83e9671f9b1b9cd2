"""Prefix under which a proxy publishes the server, for links."""

import re
from collections.abc import Sequence
from ipaddress import ip_address, ip_network

from fastapi import Request
from scrapy.settings import BaseSettings
from starlette.types import ASGIApp, Receive, Scope, Send

from catlog_scrapy.exceptions import ConfigurationError

PREFIX = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+")
MAX_PREFIX_CHARS = 200
HEADER = b"x-forwarded-prefix"
SCOPE_KEY = "catlog.prefix"


def public_path(request: Request, path: str) -> str:
    """Return the path by which the client of *request* reaches *path*."""
    prefix: str = request.scope.get(SCOPE_KEY, "")
    return prefix + path


def configured_prefix(settings: BaseSettings) -> str:
    """Return CATLOG_API_PREFIX without a slash at its end. Raises ConfigurationError."""
    prefix = str(settings["CATLOG_API_PREFIX"] or "").rstrip("/")
    if prefix and not PREFIX.fullmatch(prefix):
        raise ConfigurationError(
            f"CATLOG_API_PREFIX is {prefix!r}; use the path of the server at the proxy, such as"
            " /catlog"
        )
    return prefix


class PathPrefix:
    """Middleware that finds the prefix, and removes it from paths that the proxy passes whole.

    The header X-Forwarded-Prefix counts only from a proxy in CATLOG_API_PROXIES; any client could
    send it.
    """

    def __init__(self, app: ASGIApp, prefix: str, proxies: Sequence[str]) -> None:
        self.app = app
        self.prefix = prefix
        self.proxies = proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request with its path below the prefix."""
        if scope["type"] == "http" and (prefix := self.prefix or self._forwarded(scope)):
            raw: bytes = scope.get("raw_path") or scope["path"].encode()
            scope = {**scope, SCOPE_KEY: prefix}
            if (raw + b"/").startswith(prefix.encode() + b"/"):
                scope["raw_path"] = raw[len(prefix) :] or b"/"
                scope["path"] = scope["path"][len(prefix) :] or "/"
        await self.app(scope, receive, send)

    def _forwarded(self, scope: Scope) -> str:
        address = scope["client"][0] if scope.get("client") else ""
        if not is_proxy(address, self.proxies):
            return ""
        given = dict(scope["headers"]).get(HEADER, b"").decode("latin-1").strip().rstrip("/")
        return given if len(given) <= MAX_PREFIX_CHARS and PREFIX.fullmatch(given) else ""


def is_proxy(address: str, proxies: Sequence[str]) -> bool:
    """Return whether *address* is one of *proxies*: addresses, networks, or `*` for any."""
    if "*" in proxies or address in proxies:
        return True
    try:
        found = ip_address(address)
    except ValueError:
        return False
    for proxy in proxies:
        try:
            if found in ip_network(proxy, strict=False):
                return True
        except ValueError:
            continue
    return False
