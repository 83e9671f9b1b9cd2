"""Lists: pages of rows as JSON, and streams of all rows."""

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import orjson
import psycopg2
from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from scrapy.settings import BaseSettings
from sqlalchemy import Engine

from catlog_scrapy.api.auth.callers import Caller, RememberedCaller, server_access
from catlog_scrapy.api.problems import Problem
from catlog_scrapy.api.resources.content_negotiation import preferred_media_type
from catlog_scrapy.api.resources.etags import (
    ResourceStamps,
    cache_headers,
    is_not_modified,
    make_etag,
)
from catlog_scrapy.api.resources.index_warnings import IndexWarnings
from catlog_scrapy.api.resources.links import cursor_links, offset_links
from catlog_scrapy.api.resources.parameters import Parameters, list_parameters, read_query
from catlog_scrapy.api.resources.queries import build_query, refuse_paging
from catlog_scrapy.api.resources.readable_resource import ReadableResource
from catlog_scrapy.api.resources.streams import MEDIA_TYPES, Streams
from catlog_scrapy.db.statement_pool import StatementPool
from catlog_scrapy.store.reading.page_query import AS_OF_PARAMETER, PageQuery, PageSource
from catlog_scrapy.store.reading.pages import (
    Page,
    PageExtras,
    count,
    page_of,
    page_statement,
    read_page,
    snapshot,
)
from catlog_scrapy.store.views import time_travel
from catlog_scrapy.store.views.change_stamps import stamp_statement

# All counts of a resource are forgotten when there are more.
MAX_REMEMBERED_COUNTS = 1000
# Longer requests are parsed in a thread: other requests wait for what the event loop does.
MAX_QUICK_REQUEST_BYTES = 8192
# JSON first: clients that accept anything get a page.
OFFERED_MEDIA_TYPES = ("application/json", *MEDIA_TYPES.values())


class RowCounts:
    """Numbers of rows by filters and time, remembered until the resource changes."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[str, int]] = {}

    def known(self, asked: "ListRequest") -> tuple[str, int] | None:
        """Return the last count and its stamp."""
        return self._counts.get(asked.count_key)

    def remember(self, asked: "ListRequest", stamp: str | None, total: int) -> None:
        """Keep the count of the rows that have this *stamp*."""
        if stamp is None:
            return
        if len(self._counts) >= MAX_REMEMBERED_COUNTS:
            self._counts.clear()
        self._counts[asked.count_key] = stamp, total


@dataclass(frozen=True)
class ListRequest:
    """Parsed request of a list. `media_type` is that of a stream, None for a page."""

    request: Request
    parameters: Parameters
    query: PageQuery
    source: PageSource
    visible: tuple[str, ...]
    media_type: str | None

    @property
    def as_of(self) -> Any:
        """The time of the rows, None for the current rows."""
        return getattr(self.parameters, "as_of", None)

    @property
    def has_total(self) -> bool:
        """True for a page that says how many rows there are."""
        return self.parameters.cursor is None

    @property
    def is_conditional(self) -> bool:
        """True for a client that may have the response already."""
        return "if-none-match" in self.request.headers

    @property
    def count_key(self) -> str:
        """Text that tells counts of the same resource apart."""
        query = self.query
        return repr((query.equal, query.bounds, query.search, query.searched, self.as_of))


class ListRoute:
    """Route of a resource's list."""

    def __init__(
        self,
        resource: ReadableResource,
        engine: Engine,
        settings: BaseSettings,
        streams: Streams,
        pool: StatementPool,
    ) -> None:
        self.resource = resource
        self.engine = engine
        self.streams = streams
        self.pool = pool
        self.max_rows = max_rows = settings.getint("CATLOG_API_PAGE")
        self._parameters: dict[tuple[str, ...], type[Parameters]] = {}
        # A response depends on these besides the change stamp and the request.
        declaration = repr((resource.source, resource.key, resource.search, max_rows))
        self.declaration = hashlib.sha256(declaration.encode()).hexdigest()
        self.stamps = ResourceStamps(resource)
        self.counts = RowCounts()
        self.warnings = IndexWarnings(resource.kind, engine, settings.getint("CATLOG_API_LARGE"))

    def parameters_for(self, visible: tuple[str, ...]) -> type[Parameters]:
        """Return the parameters for callers who may see these fields.

        A hidden column is an unknown column: its parameters are refused like any other word.
        """
        if visible not in self._parameters:
            resource = self.resource
            self._parameters[visible] = list_parameters(
                f"{resource.path} parameters",
                {name: resource.columns[name] for name in visible},
                max_rows=self.max_rows,
                search=[name for name in resource.search if name in visible],
                is_declared=resource.view is not None,
                has_as_of_view=resource.as_of_source is not None,
            )
        return self._parameters[visible]

    async def respond(self, request: Request) -> Response:
        """Return a page as JSON, or a stream of all rows."""
        access = server_access(request)
        remembered = access.recall(request, self.resource.path, "read")
        if remembered and (response := await self._respond_at_once(request, remembered)):
            return response
        caller = await access.find_caller(request, self.resource.path, "read")
        return await run_in_threadpool(self._respond_in_a_thread, request, caller)

    def _respond_in_a_thread(self, request: Request, caller: Caller) -> Response:
        asked = self._parse(request, caller.role)
        return self._stream(asked, caller) if asked.media_type else self._page(asked)

    async def _respond_at_once(
        self, request: Request, remembered: RememberedCaller
    ) -> Response | None:
        """Return a page that is read in one statement, with its stamp, its count and the proof.

        None if that does not suffice.
        """
        headers_bytes = sum(len(value) for _, value in request.scope["headers"])
        if headers_bytes + len(request.scope["query_string"]) > MAX_QUICK_REQUEST_BYTES:
            return None
        try:
            asked = self._parse(request, remembered.caller.role)
        except (Problem, RequestValidationError):
            return None
        if asked.media_type:
            return None
        try:
            if asked.is_conditional and (response := await self._not_modified(asked, remembered)):
                return response
            page = await self._page_at_once(asked, remembered)
        except psycopg2.Error as error:
            if error.pgcode:  # otherwise there is no connection, which anyone may learn
                await server_access(request).find_caller(request, self.resource.path, "read")
            raise
        if page is None:
            return None
        if self.warnings.is_outdated(asked.query):
            await run_in_threadpool(self.warnings.refresh, asked.query)
        return self._page_response(asked, page, page.total, self._headers(page.stamp, asked))

    async def _page_at_once(self, asked: ListRequest, remembered: RememberedCaller) -> Page | None:
        """Read a page in one statement, or in two if the remembered count is outdated."""
        kinds = self.stamps.kinds_at(asked.as_of)
        known = self.counts.known(asked) if asked.has_total and kinds is not None else None
        counts = asked.has_total and known is None
        page = await self._read(asked, PageExtras(kinds, counts, remembered.proof))
        if page and known:
            if page.stamp == known[0]:
                return replace(page, total=known[1])
            page = await self._read(asked, PageExtras(kinds, True, remembered.proof))
        if page and page.total is not None:
            self.counts.remember(asked, page.stamp, page.total)
        return page

    async def _read(self, asked: ListRequest, extras: PageExtras) -> Page | None:
        sql, values = page_statement(asked.source, asked.query, extras)
        if asked.as_of and AS_OF_PARAMETER not in asked.source.sql:
            sql, values = f"{time_travel.SET_AS_OF}; {sql}", {**values, "at": asked.as_of}
        page = page_of(asked.query, await self.pool.rows(sql, values))
        is_current = page.stamp is None or self.stamps.is_current(page.stamp)
        return page if page.is_proven and is_current else None

    async def _not_modified(
        self, asked: ListRequest, remembered: RememberedCaller
    ) -> Response | None:
        """Return the response 304 if the client has the page, otherwise None."""
        kinds = self.stamps.kinds_at(asked.as_of)
        if kinds is None:
            return None
        sql, values = stamp_statement(kinds)
        proof = remembered.proof
        [(stamp, is_proven)] = await self.pool.rows(
            f"SELECT ({sql}), {proof.sql}", {**values, **proof.values}
        )
        headers = self._headers(stamp, asked)
        if not is_proven or not self.stamps.is_current(stamp):
            return None
        if not is_not_modified(headers, asked.request):
            return None
        return Response(status_code=304, headers=headers)

    def _parse(self, request: Request, role: str) -> ListRequest:
        """Parse a request of a caller with *role*. Raises Problem and RequestValidationError."""
        visible = self.resource.visible_fields(role)
        parameters = read_query(request, self.parameters_for(visible), self.resource.path)
        source = self.resource.source_at(getattr(parameters, "as_of", None))
        query = build_query(self.resource, parameters, visible, source)
        media_type = self._stream_media_type(request, parameters)
        if media_type:
            refuse_paging(parameters)
        return ListRequest(request, parameters, query, source, visible, media_type)

    def _stream_media_type(self, request: Request, parameters: Parameters) -> str | None:
        """Return the media type of the requested stream; None for a page."""
        if self.resource.view is None:
            return None
        if format_ := getattr(parameters, "format", None):
            return MEDIA_TYPES.get(format_)
        accept = request.headers.get("accept", "")
        media_type = preferred_media_type(accept, OFFERED_MEDIA_TYPES)
        return media_type if media_type in MEDIA_TYPES.values() else None

    def _stream(self, asked: ListRequest, caller: Caller) -> Response:
        if asked.is_conditional:
            with snapshot(self.engine) as connection:
                known = self._headers(self.stamps.read(connection, asked.as_of), asked)
            if is_not_modified(known, asked.request):
                return Response(status_code=304, headers=known)
        return self.streams.stream(
            asked.source,
            asked.query,
            caller=caller.name,
            media_type=asked.media_type or "",
            read_stamp=lambda connection: self.stamps.read(connection, asked.as_of),
            headers=lambda stamp: self._headers(stamp, asked),
        )

    def _page(self, asked: ListRequest) -> Response:
        """Return a page that is read in one snapshot."""
        total = None
        with snapshot(self.engine) as connection:
            stamp = self.stamps.read(connection, asked.as_of)
            headers = self._headers(stamp, asked)
            if is_not_modified(headers, asked.request):
                return Response(status_code=304, headers=headers)
            page = read_page(connection, asked.source, asked.query)
            if asked.has_total:
                known = self.counts.known(asked) if stamp else None
                if known and known[0] == stamp:
                    total = known[1]
                else:
                    total = count(connection, asked.source, asked.query)
                    self.counts.remember(asked, stamp, total)
        self.warnings.refresh(asked.query)
        return self._page_response(asked, page, total, headers)

    def _page_response(
        self, asked: ListRequest, page: Page, total: int | None, headers: dict[str, str]
    ) -> Response:
        if total is None:
            links = cursor_links(asked.request, self.resource.path, asked.source, asked.query, page)
        else:
            links = offset_links(asked.request, asked.query, total)
        body = _page_body(page, total, links)
        headers |= self.warnings.headers(asked.query)
        return Response(body, headers=headers, media_type="application/json")

    def _headers(self, stamp: str | None, asked: ListRequest) -> dict[str, str]:
        etag = make_etag(
            stamp,
            asked.request,
            declaration=self.declaration,
            visible=asked.visible,
            media_type=asked.media_type,
        )
        return cache_headers(etag)


def _page_body(page: Page, total: int | None, links: tuple[str | None, str | None]) -> bytes:
    """Return the JSON of a page; PostgreSQL has written the rows as JSON."""
    encoded: tuple[Any, ...] = tuple(map(orjson.dumps, links))
    parts = [b"{" if total is None else b'{"count":%d,' % total]
    parts.append(b'"next":%b,"previous":%b,"results":[' % encoded)
    parts.append(",".join(page.lines).encode())
    parts.append(b"]}")
    return b"".join(parts)
