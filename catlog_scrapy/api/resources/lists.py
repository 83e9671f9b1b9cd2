"""Lists: pages of rows as JSON, and streams of all rows."""

import hashlib
from typing import Any

import orjson
from fastapi import Request, Response
from scrapy.settings import BaseSettings
from sqlalchemy import Connection, Engine

from catlog_scrapy.api.auth.callers import server_access
from catlog_scrapy.api.resources.content_negotiation import preferred_media_type
from catlog_scrapy.api.resources.etags import (
    ResourceStamps,
    cache_headers,
    is_not_modified,
    make_etag,
)
from catlog_scrapy.api.resources.links import cursor_links, offset_links
from catlog_scrapy.api.resources.parameters import Parameters, list_parameters, read_query
from catlog_scrapy.api.resources.queries import build_query, refuse_paging
from catlog_scrapy.api.resources.readable_resource import ReadableResource
from catlog_scrapy.api.resources.streams import MEDIA_TYPES, Streams
from catlog_scrapy.store.reading.pages import (
    Page,
    PageQuery,
    PageSource,
    count,
    read_page,
    snapshot,
)

# All counts of a resource are forgotten when there are more.
MAX_REMEMBERED_COUNTS = 1000
# JSON first: clients that accept anything get a page.
OFFERED_MEDIA_TYPES = ("application/json", *MEDIA_TYPES.values())


class RowCounts:
    """Numbers of rows by filters, remembered until the resource changes."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[str, int]] = {}

    def known(self, query: PageQuery) -> tuple[str, int]:
        """Return the last count of *query* and its stamp; without a count an empty stamp and 0."""
        return self._counts.get(_count_key(query), ("", 0))

    def read(
        self, connection: Connection, source: PageSource, query: PageQuery, stamp: str | None
    ) -> int:
        """Count the rows of *query*, unless the count of this *stamp* is known."""
        if stamp is None:
            return count(connection, source, query)
        known_stamp, total = self.known(query)
        if known_stamp != stamp:
            total = count(connection, source, query)
            if len(self._counts) >= MAX_REMEMBERED_COUNTS:
                self._counts.clear()
            self._counts[_count_key(query)] = stamp, total
        return total


class ListRoute:
    """Route of a resource's list."""

    def __init__(
        self,
        resource: ReadableResource,
        engine: Engine,
        settings: BaseSettings,
        streams: Streams,
    ) -> None:
        self.resource = resource
        self.engine = engine
        # A single SELECT needs no BEGIN and COMMIT.
        self.autocommit_engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self.streams = streams
        max_rows = settings.getint("CATLOG_API_PAGE")
        self.parameters = list_parameters(
            f"{resource.path} parameters",
            resource.columns,
            max_rows=max_rows,
            search=resource.search,
            is_declared=resource.view is not None,
            has_as_of_view=resource.as_of_source is not None,
        )
        # A response depends on these besides the change stamp and the request.
        declaration = repr((resource.source, resource.key, resource.search, max_rows))
        self.declaration = hashlib.sha256(declaration.encode()).hexdigest()
        self.stamps = ResourceStamps(resource)
        self.counts = RowCounts()

    def respond(self, request: Request) -> Response:
        """Return a page as JSON, or a stream of all rows."""
        caller = server_access(request).caller(request, self.resource.path, "read")
        parameters = read_query(request, self.parameters, self.resource.path)
        visible = self.resource.visible_fields(caller.role)
        source = self.resource.source_at(getattr(parameters, "as_of", None))
        query = build_query(self.resource, parameters, visible, source)
        if media_type := self._stream_media_type(request, parameters):
            refuse_paging(parameters)
            return self._stream(request, parameters, query, visible, media_type)
        return self._page(request, parameters, query, visible)

    def _stream_media_type(self, request: Request, parameters: Parameters) -> str | None:
        """Return the media type of the requested stream; None for a page."""
        if self.resource.view is None:
            return None
        if format_ := getattr(parameters, "format", None):
            return MEDIA_TYPES.get(format_)
        accept = request.headers.get("accept", "")
        media_type = preferred_media_type(accept, OFFERED_MEDIA_TYPES)
        return media_type if media_type in MEDIA_TYPES.values() else None

    def _stream(
        self,
        request: Request,
        parameters: Parameters,
        query: PageQuery,
        visible: tuple[str, ...],
        media_type: str,
    ) -> Response:
        as_of = getattr(parameters, "as_of", None)

        def headers(stamp: str | None) -> dict[str, str]:
            return self._headers(stamp, request, visible, media_type)

        if "if-none-match" in request.headers:
            with snapshot(self.engine) as connection:
                known = headers(self.stamps.read(connection, as_of))
            if is_not_modified(known, request):
                return Response(status_code=304, headers=known)
        return self.streams.stream(
            self.resource.source_at(as_of),
            query,
            media_type=media_type,
            read_stamp=lambda connection: self.stamps.read(connection, as_of),
            headers=headers,
        )

    def _page(
        self,
        request: Request,
        parameters: Parameters,
        query: PageQuery,
        visible: tuple[str, ...],
    ) -> Response:
        as_of = getattr(parameters, "as_of", None)
        source = self.resource.source_at(as_of)
        total = None
        if quick := self._page_in_one_statement(request, parameters, query):
            page, total = quick
            headers = self._headers(page.stamp, request, visible)
        else:
            with snapshot(self.engine) as connection:
                stamp = self.stamps.read(connection, as_of)
                headers = self._headers(stamp, request, visible)
                if is_not_modified(headers, request):
                    return Response(status_code=304, headers=headers)
                page = read_page(connection, source, query)
                if parameters.cursor is None:
                    total = self.counts.read(connection, source, query, stamp)
        if total is None:
            links = cursor_links(request, self.resource.path, source, query, page)
        else:
            links = offset_links(request, query, total)
        return Response(
            _page_body(page, total, links), headers=headers, media_type="application/json"
        )

    def _page_in_one_statement(
        self, request: Request, parameters: Parameters, query: PageQuery
    ) -> tuple[Page, int | None] | None:
        """Read a page and its stamp in one statement, which needs no transaction.

        None if that does not suffice: the count has to be known, and the client must not have a
        response that may still be current. An empty page has no stamp, so pages that may be empty
        are excluded.
        """
        kinds = self.stamps.kinds
        stamp, total = self.counts.known(query)
        if (
            kinds is None
            or getattr(parameters, "as_of", None) is not None
            or "if-none-match" in request.headers
            or not (parameters.cursor or query.offset < total)
        ):
            return None
        with self.autocommit_engine.connect() as connection:
            page = read_page(connection, self.resource.source, query, kinds)
        if page.stamp is None or not self.stamps.is_current(page.stamp):
            return None
        if parameters.cursor is not None:
            return page, None
        return (page, total) if stamp == page.stamp else None

    def _headers(
        self,
        stamp: str | None,
        request: Request,
        visible: tuple[str, ...],
        media_type: str | None = None,
    ) -> dict[str, str]:
        return cache_headers(
            make_etag(
                stamp,
                request,
                declaration=self.declaration,
                visible=visible,
                media_type=media_type,
            )
        )


def _page_body(page: Page, total: int | None, links: tuple[str | None, str | None]) -> bytes:
    """Return the JSON of a page; PostgreSQL has written the rows as JSON."""
    encoded: tuple[Any, ...] = tuple(map(orjson.dumps, links))
    parts = [b"{" if total is None else b'{"count":%d,' % total]
    parts.append(b'"next":%b,"previous":%b,"results":[' % encoded)
    parts.append(",".join(page.lines).encode())
    parts.append(b"]}")
    return b"".join(parts)


def _count_key(query: PageQuery) -> str:
    return repr((query.equal, query.bounds, query.search, query.searched))
