"""Paths of requests: optional prefix and slash, escaped slashes."""

import re
from urllib.parse import unquote

from starlette.types import ASGIApp, Receive, Scope, Send

from catlog_scrapy.api.problems import Problem

PREFIX = "/api/v1"
# Paths that the clients of the first deployment use without the prefix.
UNPREFIXED_PATHS = re.compile(
    r"/(providers|catalogs|catalog_schemes|catalog_scheme_operations|catalog_results"
    r"|catalog_scheme_operation_instances|schedule_catalog_scheme_operation)(/|$)"
)
ESCAPED_SLASH = re.compile(rb"%2f|%25", re.IGNORECASE)


class PathNormalizer:
    """Middleware that makes the prefix and a trailing slash optional.

    HEAD becomes GET; the HTTP server leaves the response's body out. An escaped slash stays escaped
    until the router has split the path, because a record's key may contain a slash.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            raw: bytes = scope.get("raw_path") or scope["path"].encode()
            path = unquote(
                ESCAPED_SLASH.sub(lambda found: found[0].replace(b"%", b"%25"), raw),
                errors="surrogateescape",
            )
            if any("\ud800" <= letter <= "\udfff" or letter == "\0" for letter in path):
                problem = Problem(400, "The path is not valid UTF-8 text without U+0000.")
                return await problem.response()(scope, receive, send)
            path = path.rstrip("/") or "/"
            scope = {
                **scope,
                "catlog.path": raw,
                "path": PREFIX + path if UNPREFIXED_PATHS.match(path) else path,
            }
            if scope["method"] == "HEAD":
                scope["method"] = "GET"
        return await self.app(scope, receive, send)
