"""Single rows of a resource, and their history."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any
from urllib.parse import unquote

import orjson
from fastapi import Request, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model
from sqlalchemy import Engine

from catlog_scrapy.api.auth.callers import server_access
from catlog_scrapy.api.problems import Problem
from catlog_scrapy.api.resources.etags import cache_headers
from catlog_scrapy.api.resources.links import page_url
from catlog_scrapy.api.resources.parameters import (
    AS_OF,
    COLUMN_TYPES,
    Instant,
    Text,
    read_query,
    validate,
)
from catlog_scrapy.api.resources.readable_resource import ReadableResource
from catlog_scrapy.store.reading.history import record_history, row_history
from catlog_scrapy.store.reading.page_query import PageQuery
from catlog_scrapy.store.reading.pages import read_page, snapshot
from catlog_scrapy.store.record_tables.reading import record_ids
from catlog_scrapy.store.views import time_travel

# States of one response; for a view without a kind, points in time that are compared.
MAX_STATES = 100
# Text of a path is unescaped twice, so that an escaped slash stays part of the key.
PathText = Annotated[Text, BeforeValidator(unquote), Field(min_length=1)]


class NoQuery(BaseModel):
    """Query of a path without parameters."""

    model_config = ConfigDict(extra="forbid")


class AsOfQuery(NoQuery):
    """Query of a row that can be read as of a time."""

    as_of: Instant | None = Field(None, description=AS_OF, examples=["2026-11-01T00:00Z"])


class HistoryQuery(NoQuery):
    """Query of a row's history."""

    limit: int = Field(100, ge=1, le=MAX_STATES, description="Number of states.")
    before: Instant | None = Field(
        None, description="Time before which the states began, as `next` contains it."
    )


def key_model(resource: ReadableResource) -> type[BaseModel]:
    """Return the model of a key in a path."""
    fields: dict[str, Any] = {}
    for n, name in enumerate(resource.key):
        type_ = COLUMN_TYPES[resource.source.columns[name]][0]
        annotation = PathText if type_ is Text else type_
        # A column may have any name, so the model's fields are numbered.
        fields[f"key_{n}"] = (annotation, Field(alias=name, description=f"`{name}` of the row."))
    return create_model(f"{resource.path} key", **fields)


class RowRoute:
    """Route of a single row, by its key."""

    def __init__(self, resource: ReadableResource, engine: Engine) -> None:
        self.resource = resource
        self.engine = engine
        self.key = key_model(resource)
        self.query: type[NoQuery] = AsOfQuery if resource.as_of_source else NoQuery

    def respond(self, request: Request) -> Response:
        """Return the row as JSON."""
        resource = self.resource
        caller = server_access(request).caller(request, resource.path, "read")
        key = _read_key(request, self.key, resource)
        as_of = getattr(read_query(request, self.query, resource.path), "as_of", None)
        source = resource.source_at(as_of)
        fields = resource.visible_fields(caller.role)
        query = PageQuery(fields, equal=resource.key_filter(key), limit=1, as_of=as_of)
        with snapshot(self.engine) as connection:
            if as_of:
                time_travel.set_as_of(connection, as_of)
            page = None
            if kind := resource.kind:
                # By the primary key. A key in another notation is found by its values below.
                ids = record_ids(connection, kind, [key[name] for name in kind.key])
                page = read_page(connection, source, replace(query, ids=tuple(ids)))
            if page is None or not page.lines:
                page = read_page(connection, source, query)
        if not page.lines:
            raise _row_not_found(resource, key)
        if page.has_more:
            raise Problem(
                409, f"several rows of {resource.path} have this key; list them with filters"
            )
        return Response(page.lines[0], headers=cache_headers(), media_type="application/json")


class HistoryRoute:
    """Route of the former states of a row."""

    def __init__(self, resource: ReadableResource, engine: Engine) -> None:
        self.resource = resource
        self.engine = engine
        self.key = key_model(resource)
        self.query = HistoryQuery

    def respond(self, request: Request) -> Response:
        """Return the states of the row, newest first."""
        resource = self.resource
        caller = server_access(request).caller(request, resource.path, "read")
        key = _read_key(request, self.key, resource)
        asked = read_query(request, self.query, resource.path)
        fields = resource.visible_fields(caller.role)
        earliest: dt.datetime | None = None
        with snapshot(self.engine) as connection:
            if resource.kind:
                states, earliest = record_history(
                    connection,
                    resource.kind.name,
                    key,
                    fields,
                    before=asked.before,
                    limit=asked.limit,
                )
            elif resource.as_of_source and resource.kinds:
                states, earliest = row_history(
                    connection,
                    resource.as_of_source,
                    PageQuery(fields, equal=resource.key_filter(key), limit=1),
                    resource.kinds,
                    before=asked.before,
                    limit=asked.limit,
                )
        if not states and earliest is None and asked.before is None:
            raise _row_not_found(resource, key)
        following = earliest and page_url(request, before=earliest.isoformat())
        lines = [
            b'{"valid_from":%b,"valid_to":%b,"change":%b%b'
            % (*map(orjson.dumps, state[1:]), _further_members(state.line))
            for state in states
        ]
        body = b'{"next":%b,"results":[%b]}' % (orjson.dumps(following), b",".join(lines))
        return Response(body, headers=cache_headers(), media_type="application/json")


def _read_key(
    request: Request, model: type[BaseModel], resource: ReadableResource
) -> dict[str, Any]:
    key = validate("path", model, request.path_params, resource.path)
    return {name: getattr(key, f"key_{n}") for n, name in enumerate(resource.key)}


def _row_not_found(resource: ReadableResource, key: Mapping[str, Any]) -> Problem:
    return Problem(404, f"no row of {resource.path} has the key {'/'.join(map(str, key.values()))}")


def _further_members(line: str) -> bytes:
    """Return the members and the end of a JSON object, to append to other members."""
    return b"}" if line == "{}" else f",{line[1:]}".encode()
