"""The routes of all there is to read."""

import inspect
import re
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any
from urllib.parse import unquote

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute
from pydantic import BeforeValidator
from scrapy.settings import BaseSettings
from sqlalchemy import Connection, Engine

from catlog_scrapy.api.auth.callers import Access, Caller
from catlog_scrapy.api.problems import problem_responses
from catlog_scrapy.api.resources.parameters import AS_OF, TYPES, Instant, Text, query_of, schema_of
from catlog_scrapy.api.resources.readable import Readable
from catlog_scrapy.api.resources.reader import Reader
from catlog_scrapy.api.resources.streams import Streams
from catlog_scrapy.declarations.resources import Resource, Resources
from catlog_scrapy.exceptions import DeclarationError
from catlog_scrapy.store.definitions import KindDefinition
from catlog_scrapy.store.reading.listings import LISTINGS
from catlog_scrapy.store.reading.pages import OrderTerm, PageSource, describe
from catlog_scrapy.store.schemes import all_kinds
from catlog_scrapy.store.sql import row
from catlog_scrapy.store.views import lineage
from catlog_scrapy.store.views.typed import INDEX_COLUMNS, as_of_view, indexed_view

PROBLEMS = problem_responses(401, 403, 422)
IF_NONE_MATCH = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "description": "an `ETag` of before: the answer is 304 if nothing has changed since",
    "schema": {"type": "string"},
    "example": '"0f343b0931126a20f133d67c2b018a3b"',
}
TAG = {
    "ETag": {
        "description": "of this answer; none where nobody can tell whether it has changed",
        "schema": {"type": "string"},
    }
}
# Of a column: what can be written between the quotes of SQL, and in a URL between commas.
NAME = re.compile(r"\w([\w -]*\w)?")
# Parameters that may be left out.
DEFAULTS = {"as_of": None, "before": None, "limit": 100}
# States of one row that are shown at once; of a view, moments that are looked at.
MOST_STATES = 100
AsOf = Annotated[
    Instant | None,
    Query(description=AS_OF, examples=["2026-11-01T00:00Z"]),
]


def readables(connection: Connection, declared: Resources) -> list[Readable]:
    """All that can be read. Raises DeclarationError for a resource that its view cannot be."""
    found = []
    for listing in LISTINGS:
        columns = describe(connection, listing.sql)
        source = PageSource(listing.sql, columns, listing.order)
        found.append(Readable(listing.path, listing.about, source, listing.key, tuple(columns)))
    return [*found, *(_declared(connection, declared.file, each) for each in declared.resources)]


def _declared(connection: Connection, file: str, resource: Resource) -> Readable:
    kind = all_kinds(connection).get(resource.view)
    view = describe_view(connection, resource.view)
    for mistake in _mistakes(resource, view, kind):
        raise DeclarationError(f"{file}: resources.{resource.path}: {mistake}")
    sources = lineage.view_sources(connection, resource.view)
    order = tuple(OrderTerm(name) for name in resource.key)
    source = PageSource(f'public."{resource.view}"', view, order, has_nulls=True)
    then = replace(source, sql=f'as_of."{resource.view}"') if sources.has_as_of_view else None
    if kind:
        # By the index of the records, whose cost does not grow with depth.
        records = indexed_view(kind)
        by_index = tuple(OrderTerm(name) for name in INDEX_COLUMNS)
        source = PageSource(records, describe(connection, records), by_index)
        if then:
            then = PageSource(as_of_view(kind, by_index=True), source.columns, by_index)
    return Readable(
        resource.path,
        f"The view `{resource.view}`, row by row.",
        source,
        resource.key,
        resource.fields or tuple(view),
        then=then,
        search=resource.search,
        hidden=resource.hidden,
        model=resource.model,
        kinds=sources.cacheable_kinds,
        view=resource.view,
        kind=kind if kind and set(kind.key) <= set(resource.key) else None,
    )


def _mistakes(
    resource: Resource, view: Mapping[str, str], kind: KindDefinition | None
) -> Iterator[str]:
    """Why *resource* cannot be of its *view*, whose columns these are; of none if there is none."""
    if not view:
        yield f'there is no view "{resource.view}"; run scrapy apply, or correct its name.'
        return
    for name in (*resource.key, *resource.fields, *resource.search, *_hidden(resource)):
        if name not in view:
            yield f'the view "{resource.view}" has no column "{name}".'
    for name in (*(resource.fields or view), *resource.key, *resource.search):
        if not NAME.fullmatch(name):
            yield (
                f'the name of the column "{name}" has more than letters, digits, _, - and blanks;'
                " rename it in the view by AS, or leave it out of `fields`."
            )
    for name in resource.key:
        if view[name] not in TYPES:
            yield f'its key "{name}" is of the type {view[name]}, which no URL can hold.'
    for name in resource.search:
        if view[name] not in ("text", "character varying"):
            yield f'"{name}" cannot be searched: it is no text.'
    for name in kind.key if kind else ():
        if name in _hidden(resource):
            yield f'"{name}" cannot be hidden: cursors have the key of its records.'


def describe_view(connection: Connection, view: str) -> dict[str, str]:
    """The columns of a view in `public`, none where it is not there."""
    found = row(connection, "SELECT to_regclass(:name) AS there", name=f'public."{view}"')
    return describe(connection, f'public."{view}"') if found and found["there"] else {}


def _hidden(resource: Resource) -> set[str]:
    return {column for columns in resource.hidden.values() for column in columns}


def reading(
    engine: Engine, access: Access, settings: BaseSettings, found: Iterable[Readable]
) -> tuple[APIRouter, dict[str, Any]]:
    """The routes, and the JSON schemas of the rows by name."""
    router = APIRouter()
    schemas: dict[str, Any] = {}
    streams = Streams(engine, settings)
    for readable in found:
        reader = Reader(engine, readable, settings, streams)
        schemas |= _schemas(readable)
        _add(router, reader, access)
    return router, schemas


class AtOnce(APIRoute):
    """A route that is answered in one thread, by the function `at_once` of its endpoint.

    FastAPI takes a thread for who asks and one for the answer, and goes through all parameters that
    there could be, for each request: together a third of the time of a page. The endpoint's own
    parameters are for the documentation.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer: Callable[[Request], Response] = self.endpoint.at_once  # type: ignore[attr-defined]

        async def handle(request: Request) -> Response:
            return await run_in_threadpool(answer, request)

        return handle


def _add(router: APIRouter, reader: Reader, access: Access) -> None:
    readable = reader.readable
    caller = Annotated[Caller, Depends(access.permitted(readable.path, "read"))]
    tag = "resources" if readable.view else "loads"
    rows = {"$ref": f"#/components/schemas/{readable.path}"}
    content: dict[str, Any] = {"application/json": {"schema": _page(rows)}}
    statuses: dict[int | str, dict[str, Any]] = dict(PROBLEMS)
    taken: dict[str, Any] = {}
    headers: dict[str, Any] = {}
    if readable.view:
        content["application/x-ndjson"] = {"schema": {"type": "string"}}
        content["text/csv"] = {"schema": {"type": "string"}}
        statuses[304] = {"description": "Nothing has changed since `If-None-Match`."}
        taken["parameters"] = [IF_NONE_MATCH]
        headers = TAG

    def page(request: Request) -> Response:
        asking = access.caller(request, readable.path, "read")
        return reader.page(request, query_of(request, reader.parameters), asking)

    listing = _taking(reader.page, asked=Annotated[reader.parameters, Query()], caller=caller)
    listing.at_once = page  # type: ignore[attr-defined]
    router.add_api_route(
        f"/{readable.path}",
        listing,
        route_class_override=AtOnce,
        response_class=Response,
        responses={
            **statuses,
            200: {"description": readable.about, "content": content, "headers": headers},
        },
        openapi_extra=taken,
        tags=[tag],
        summary=f"List {readable.path.replace('_', ' ').replace('-', ' ')}",
        operation_id=f"list_{readable.path}",
    )
    key = {f"key_{n}": _path_parameter(readable, name) for n, name in enumerate(readable.key)}
    path = "/".join([f"/{readable.path}", *(f"{{{name}}}" for name in readable.key)])
    one: dict[int | str, dict[str, Any]] = {
        **PROBLEMS,
        **problem_responses(404, 409),
        200: {"description": "The row.", "content": {"application/json": {"schema": rows}}},
    }
    as_of = {"as_of": AsOf} if readable.then else {}
    router.add_api_route(
        path,
        _taking(reader.one, **key, **as_of, caller=caller),
        response_class=Response,
        responses=one,
        tags=[tag],
        summary=f"One of {readable.path.replace('_', ' ').replace('-', ' ')}",
        operation_id=f"get_{readable.path}",
    )
    if not (readable.kind or (readable.then and readable.kinds)):
        return
    router.add_api_route(
        f"{path}/history",
        _taking(
            reader.history,
            **key,
            limit=Annotated[int, Query(ge=1, le=MOST_STATES)],
            before=Annotated[Instant | None, Query(description="only states from before")],
            caller=caller,
        ),
        response_class=Response,
        responses={
            **PROBLEMS,
            **problem_responses(404),
            200: {
                "description": "Its states, newest first.",
                "content": {"application/json": {"schema": _history(readable)}},
            },
        },
        tags=[tag],
        summary=f"What one of {readable.path.replace('-', ' ')} was, and when",
        operation_id=f"history_{readable.path}",
    )


def _taking(answer: Callable[..., Response], **annotations: Any) -> Callable[..., Response]:
    """*answer* as an endpoint with a resource's parameters, which differ by its columns."""

    def endpoint(**given: Any) -> Response:
        return answer(**given)

    endpoint.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                annotation=annotation,
                default=DEFAULTS.get(name, inspect.Parameter.empty),
            )
            for name, annotation in {"request": Request, **annotations}.items()
        ]
    )
    return endpoint


def _path_parameter(readable: Readable, name: str) -> Any:
    type_ = TYPES[readable.source.columns[name]][0]
    if type_ is Text:
        # What was escaped twice, so that a slash stays one.
        return Annotated[type_, BeforeValidator(unquote), Path(alias=name, min_length=1)]
    return Annotated[type_, Path(alias=name)]


def _page(rows: dict[str, Any]) -> dict[str, Any]:
    place = {"type": ["string", "null"], "description": "a URL"}
    return {
        "type": "object",
        "properties": {
            "count": {"type": "integer", "description": "of all pages; not with a cursor"},
            "next": place,
            "previous": place,
            "results": {"type": "array", "items": rows},
        },
        "required": ["next", "previous", "results"],
    }


def _history(readable: Readable) -> dict[str, Any]:
    moment = {"type": "string", "format": "date-time"}
    state = {
        "type": "object",
        "properties": {
            "valid_from": moment,
            "valid_to": {**moment, "type": ["string", "null"], "description": "null: it still is"},
            "change": {
                "enum": ["changed", "removed", None],
                "description": "what ended it",
            },
            **_schemas(readable)[readable.path]["properties"],
        },
        "required": ["valid_from", "valid_to", "change"],
    }
    return {
        "type": "object",
        "properties": {
            "next": {"type": ["string", "null"], "description": "a URL"},
            "results": {"type": "array", "items": state},
        },
        "required": ["next", "results"],
    }


def _schemas(readable: Readable) -> dict[str, Any]:
    if readable.model is None:
        return {readable.path: schema_of(readable.source.columns, readable.fields)}
    schema = readable.model.model_json_schema(
        mode="serialization", ref_template="#/components/schemas/{model}"
    )
    # With `?fields=` some are left out.
    schema.pop("required", None)
    return {**schema.pop("$defs", {}), readable.path: schema}
