"""Routes of the resources: a list, a row and its history for each of them."""

from collections.abc import Callable, Coroutine, Iterable
from inspect import iscoroutinefunction
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute
from scrapy.settings import BaseSettings
from sqlalchemy import Engine
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from catlog_scrapy.api.auth.callers import server_access
from catlog_scrapy.api.problems import Problem
from catlog_scrapy.api.resources.documentation import (
    IF_NONE_MATCH,
    document_operation,
    history_responses,
    list_responses,
    row_responses,
)
from catlog_scrapy.api.resources.lists import ListRoute
from catlog_scrapy.api.resources.readable_resource import ReadableResource
from catlog_scrapy.api.resources.rows import HistoryRoute, RowRoute
from catlog_scrapy.api.resources.streams import Streams
from catlog_scrapy.db.statement_pool import StatementPool


class DirectRoute(APIRoute):
    """Route whose endpoint gets the request itself; one that may block runs in a thread.

    FastAPI's own handler would also look for dependencies and a body.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler of requests."""
        if iscoroutinefunction(self.endpoint):
            handler: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint
            return handler

        async def handle(request: Request) -> Response:
            response: Response = await run_in_threadpool(self.endpoint, request)
            return response

        return handle


class ListIndex(BaseRoute):
    """Lists by their paths, in front of the routes that document them.

    FastAPI matches one regular expression after the other and opens two exit stacks, which takes a
    quarter of the CPU of a small page.
    """

    def __init__(self, router: APIRouter, prefix: str) -> None:
        self.endpoints: dict[str, Callable[[Request], Coroutine[Any, Any, Response]]] = {
            prefix + route.path: route.endpoint
            for route in router.routes
            if isinstance(route, DirectRoute) and iscoroutinefunction(route.endpoint)
        }

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match a GET request of a list."""
        is_list = scope["type"] == "http" and scope["path"] in self.endpoints
        if is_list and scope["method"] == "GET":
            return Match.FULL, {"endpoint": self.endpoints[scope["path"]], "path_params": {}}
        return Match.NONE, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response of the list."""
        response = await self.endpoints[scope["path"]](Request(scope, receive, send))
        await response(scope, receive, send)


def resource_router(
    resources: list[ReadableResource],
    engine: Engine,
    settings: BaseSettings,
    pool: StatementPool,
) -> APIRouter:
    """Create the routes of *resources*."""
    router = APIRouter(route_class=DirectRoute, default_response_class=Response)
    streams = Streams(engine, settings)
    for resource in resources:
        _add_list(router, resource, ListRoute(resource, engine, settings, streams, pool))
        _add_row(router, resource, RowRoute(resource, engine))
        if resource.has_history:
            _add_history(router, resource, HistoryRoute(resource, engine))
    return router


def add_unavailable_resources(router: APIRouter, paths: Iterable[str]) -> None:
    """Let the paths of resources that do not fit their views answer 503."""
    for path in paths:
        for below in (f"/{path}", f"/{path}/{{below:path}}"):
            router.add_api_route(
                below, _unavailable(path), name=f"unavailable_{path}", include_in_schema=False
            )


def _unavailable(path: str) -> Callable[[Request], Response]:
    def respond(request: Request) -> Response:
        server_access(request).caller(request, path, "read")
        raise Problem(
            503,
            f"the resource {path} does not fit its view; run scrapy apply, and restart the server,"
            " whose log names the mistake",
            headers={"Retry-After": "60"},
        )

    return respond


def _add_list(router: APIRouter, resource: ReadableResource, route: ListRoute) -> None:
    extra = document_operation(query=route.parameters_for(resource.public_fields))
    if resource.view:
        extra["parameters"].append(IF_NONE_MATCH)
    router.add_api_route(
        f"/{resource.path}",
        route.respond,
        name=f"list_{resource.path}",
        responses=list_responses(resource),
        openapi_extra=extra,
        tags=[_tag(resource)],
        summary=f"List {_title(resource)}",
        description="Return a page of rows, or stream all rows."
        if resource.view
        else "Return a page of rows.",
    )


def _add_row(router: APIRouter, resource: ReadableResource, route: RowRoute) -> None:
    router.add_api_route(
        _row_path(resource),
        route.respond,
        name=f"get_{resource.path}",
        responses=row_responses(resource),
        openapi_extra=document_operation(path=route.key, query=route.query),
        tags=[_tag(resource)],
        summary=f"Get a row of {_title(resource)}",
        description="Return the row with this key.",
    )


def _add_history(router: APIRouter, resource: ReadableResource, route: HistoryRoute) -> None:
    router.add_api_route(
        f"{_row_path(resource)}/history",
        route.respond,
        name=f"history_{resource.path}",
        responses=history_responses(resource),
        openapi_extra=document_operation(path=route.key, query=route.query),
        tags=[_tag(resource)],
        summary=f"Get the history of a row of {_title(resource)}",
        description="Return the states that the row had, newest first.",
    )


def _row_path(resource: ReadableResource) -> str:
    return "/".join([f"/{resource.path}", *(f"{{{name}}}" for name in resource.key)])


def _tag(resource: ReadableResource) -> str:
    if resource.view:
        return "resources"
    return "schedules" if resource.path == "schedules" else "loads"


def _title(resource: ReadableResource) -> str:
    return resource.path.replace("_", " ").replace("-", " ")
