"""Answers for what there is to read: the listings of loads, and the declared resources."""

import datetime as dt
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson
from fastapi import Request, Response
from scrapy.settings import BaseSettings
from sqlalchemy import Connection, Engine

from catlog_scrapy.api.auth.callers import Caller
from catlog_scrapy.api.problems import Problem, invalid_parameter
from catlog_scrapy.api.resources.content_negotiation import preferred_media_type
from catlog_scrapy.api.resources.cursors import cursor_of, position_of
from catlog_scrapy.api.resources.links import page_url
from catlog_scrapy.api.resources.parameters import TYPES, Parameters, filters_of, parameters
from catlog_scrapy.api.resources.readable import Readable
from catlog_scrapy.api.resources.streams import MEDIA_TYPES, Streams
from catlog_scrapy.store.reading.history import record_history, row_history
from catlog_scrapy.store.reading.pages import (
    OrderTerm,
    Page,
    PageQuery,
    PageSource,
    count,
    read_page,
    snapshot,
)
from catlog_scrapy.store.views import change_stamps, lineage, time_travel

# How many counts are remembered; all are forgotten when there are more.
MOST_COUNTS = 1000
# A page first: it is for whoever takes anything.
OFFERED = ("application/json", *MEDIA_TYPES.values())


class Reader:
    """Answers for one resource."""

    def __init__(
        self, engine: Engine, readable: Readable, settings: BaseSettings, streams: Streams
    ) -> None:
        self.engine = engine
        self.readable = readable
        self.streams = streams
        self.parameters = parameters(
            f"{readable.path} parameters",
            readable.columns,
            most=settings.getint("CATLOG_API_PAGE"),
            search=readable.search,
            is_declared=readable.view is not None,
            has_as_of_view=readable.then is not None,
        )
        # What an answer depends on besides its stamp and what is asked.
        declared = readable.source, readable.key, readable.search
        said = repr((*declared, settings.getint("CATLOG_API_PAGE")))
        self.declared = hashlib.sha256(said.encode()).hexdigest()
        # One statement needs no BEGIN and no COMMIT around it.
        self.reading = engine.execution_options(isolation_level="AUTOCOMMIT")
        # The stamp of which each is, and how many rows there are.
        self.counts: dict[str, tuple[str, int]] = {}
        # The kinds that it reads, and when views were last made as those were looked up.
        self.sources: tuple[Sequence[str] | None, str | None] = (readable.kinds, None)

    def page(self, request: Request, asked: Parameters, caller: Caller) -> Response:
        """A page as JSON, or all rows as a stream."""
        visible = self._visible(caller)
        as_of = getattr(asked, "as_of", None)
        source = self._source(as_of)
        media_type = self._media_type(request, asked)
        question = self._question(asked, visible, source)
        if media_type:
            self._refuse_pages(asked)
        if not media_type and (quick := self._quick(request, asked, question)):
            page, total = quick
            headers = self._headers(self._tag(page.stamp, request, visible, media_type))
        else:
            with snapshot(self.engine) as connection:
                stamp = self._stamp(connection, as_of)
                headers = self._headers(self._tag(stamp, request, visible, media_type))
                if _is_known(headers, request):
                    return Response(status_code=304, headers=headers)
                total = None
                if media_type is None:
                    page = read_page(connection, source, question)
                    if asked.cursor is None:
                        total = self._count(connection, source, question, stamp)
        if media_type:
            return self.streams.stream(
                source,
                question,
                media_type=media_type,
                look=lambda connection: self._stamp(connection, as_of),
                headers=lambda stamp: self._headers(self._tag(stamp, request, visible, media_type)),
            )
        links = self._links(request, asked, question, page, total)
        parts = [b"{" if total is None else b'{"count":%d,' % total]
        parts.append(
            b'"next":%b,"previous":%b,"results":[' % tuple(orjson.dumps(each) for each in links)
        )
        parts.append(",".join(page.lines).encode())
        parts.append(b"]}")
        return Response(b"".join(parts), headers=headers, media_type="application/json")

    def _quick(
        self, request: Request, asked: Parameters, question: PageQuery
    ) -> tuple[Page, int | None] | None:
        """A page and its count by one statement, which is of one moment without a transaction.

        Where that is enough: the count is known, and the client has nothing that may do. Not where
        the page may be empty, for such a one has no stamp, and would be looked for twice.
        """
        kinds, views = self.sources
        stamp, total = self.counts.get(_counted(question), ("", 0))
        if (
            kinds is None
            or getattr(asked, "as_of", None) is not None
            or "if-none-match" in request.headers
            or not (asked.cursor or question.offset < total)
        ):
            return None
        with self.reading.connect() as connection:
            page = read_page(connection, self.readable.source, question, kinds)
        if page.stamp is None or change_stamps.views_stamp(page.stamp) != views:
            return None
        if asked.cursor is not None:
            return page, None
        return (page, total) if stamp == page.stamp else None

    def one(self, request: Request, caller: Caller, as_of: Any = None, **key: Any) -> Response:
        """The row whose key has these values, in its order."""
        _refuse_others(request, "as_of" if self.readable.then else "")
        values = list(key.values())
        equal = self._key(values)
        with snapshot(self.engine) as connection:
            if as_of:
                time_travel.set_as_of(connection, as_of)
            question = PageQuery(self._visible(caller), equal=equal, limit=1)
            page = None
            if written := self._written(key.values()):
                by_index = replace(question, key=written)
                page = read_page(connection, self._source(as_of), by_index)
            if page is None or not page.lines:
                page = read_page(connection, self._source(as_of), question)
        if not page.lines:
            raise Problem(404, f"no {self.readable.path} {'/'.join(map(str, values))}.")
        if page.has_more:
            raise Problem(409, f"several {self.readable.path} have this key; list them by filters.")
        return Response(page.lines[0], headers=self._headers(None), media_type="application/json")

    def history(
        self,
        request: Request,
        caller: Caller,
        limit: int,
        before: dt.datetime | None = None,
        **key: Any,
    ) -> Response:
        """The states of the row whose key has these values, newest first."""
        _refuse_others(request, "limit", "before")
        readable = self.readable
        visible = self._visible(caller)
        values = list(key.values())
        earliest: dt.datetime | None = None
        with snapshot(self.engine) as connection:
            if readable.kind:
                named = dict(zip(readable.key, values, strict=True))
                states, earliest = record_history(
                    connection, readable.kind.name, named, visible, before=before, limit=limit
                )
            elif readable.then and readable.kinds:
                question = PageQuery(visible, equal=self._key(values), limit=1)
                states, earliest = row_history(
                    connection,
                    readable.then,
                    question,
                    readable.kinds,
                    before=before,
                    limit=limit,
                )
        if not states and earliest is None and before is None:
            raise Problem(404, f"no {readable.path} {'/'.join(map(str, values))}.")
        following = earliest and page_url(request, before=earliest.isoformat())
        lines = [
            b'{"valid_from":%b,"valid_to":%b,"change":%b%b'
            % (*map(orjson.dumps, state[1:]), _continued(state.line))
            for state in states
        ]
        body = b'{"next":%b,"results":[%b]}' % (orjson.dumps(following), b",".join(lines))
        return Response(body, headers=self._headers(None), media_type="application/json")

    def _written(self, values: Iterable[Any]) -> str | None:
        """The stored key of the record whose resource's key has these *values*, where known."""
        kind = self.readable.kind
        if kind is None:
            return None
        named = dict(zip(self.readable.key, values, strict=True))
        return time_travel.stored_key(kind, [named[name] for name in kind.key])

    def _key(self, values: Sequence[Any]) -> dict[str, list[Any]]:
        return {
            name: [str(value) if self.readable.columns.get(name) == "uuid" else value]
            for name, value in zip(self.readable.key, values, strict=True)
        }

    def _visible(self, caller: Caller) -> tuple[str, ...]:
        hidden = self.readable.hidden.get(caller.role, frozenset())
        return tuple(name for name in self.readable.fields if name not in hidden)

    def _source(self, as_of: Any) -> PageSource:
        then = self.readable.then
        return then if as_of is not None and then is not None else self.readable.source

    def _media_type(self, request: Request, asked: Parameters) -> str | None:
        """That of the stream which is asked for; None for a page."""
        if self.readable.view is None:
            return None
        named = getattr(asked, "format", None)
        if named:
            return MEDIA_TYPES.get(named)
        preferred = preferred_media_type(request.headers.get("accept", ""), OFFERED)
        return preferred if preferred in MEDIA_TYPES.values() else None

    def _refuse_pages(self, asked: Parameters) -> None:
        paged = {"limit", "offset", "cursor"} & asked.model_fields_set
        if paged:
            name = min(paged)
            raise Problem(
                422,
                "a stream has all rows, so it has no pages.",
                errors=[(f"query.{name}", "leave it out, or ask for format=json")],
            )

    def _question(
        self, asked: Parameters, visible: tuple[str, ...], source: PageSource
    ) -> PageQuery:
        equal, bounds = filters_of(asked, self.readable.columns)
        for column in [*equal, *(column for column, _, _ in bounds)]:
            self._refuse_hidden(column, visible, column)
        values: Any = asked
        order = self._order(values.order, visible)
        after, backwards = None, False
        if values.cursor is not None and values.offset:
            raise invalid_parameter("offset", "leave it out: the cursor says where it begins")
        if values.cursor:
            after, backwards = position_of(values.cursor, self.readable.path, order, source)
        return PageQuery(
            fields=self._fields(values.fields, visible),
            equal=equal,
            bounds=bounds,
            search=getattr(asked, "search", None) or "",
            searched=tuple(name for name in self.readable.search if name in visible),
            order=order,
            limit=values.limit,
            offset=values.offset,
            after=after,
            backwards=backwards,
        )

    def _fields(self, named: str | None, visible: tuple[str, ...]) -> tuple[str, ...]:
        if not named:
            return visible
        names = tuple(dict.fromkeys(name.strip() for name in named.split(",")))
        for name in names:
            self._refuse_hidden(name, visible, "fields")
        return names

    def _order(self, named: str | None, visible: tuple[str, ...]) -> tuple[OrderTerm, ...]:
        terms: dict[str, OrderTerm] = {}
        for word in named.split(",") if named else ():
            name = word.strip().removeprefix("-")
            self._refuse_hidden(name, visible, "order")
            if self.readable.columns[name] not in TYPES:
                raise invalid_parameter("order", f"nothing can be ordered by {name}")
            terms[name] = OrderTerm(name, word.strip().startswith("-"), nulls="LAST")
        return tuple(terms.values())

    def _refuse_hidden(self, name: str, visible: tuple[str, ...], parameter: str) -> None:
        """Raise Problem for a column that there is not, or not for this role: it cannot tell."""
        if name not in visible:
            raise invalid_parameter(parameter, f"there is no column {name[:100]!r}")

    def _links(
        self,
        request: Request,
        asked: Parameters,
        question: PageQuery,
        page: Page,
        total: int | None,
    ) -> tuple[str | None, str | None]:
        """Where the next page is, and the previous one."""
        if total is not None:
            behind = question.offset + question.limit
            before = max(0, question.offset - question.limit)
            return (
                page_url(request, limit=question.limit, offset=behind) if behind < total else None,
                page_url(request, limit=question.limit, offset=before) if question.offset else None,
            )
        path, source = self.readable.path, self._source(getattr(asked, "as_of", None))
        has_next = bool(page.last) and (page.has_more or question.backwards)
        has_previous = bool(page.first) and (
            page.has_more if question.backwards else question.after is not None
        )
        return (
            page_url(request, cursor=cursor_of(path, question.order, source, page.last))
            if has_next
            else None,
            page_url(
                request,
                cursor=cursor_of(path, question.order, source, page.first, backwards=True),
            )
            if has_previous
            else None,
        )

    def _count(
        self, connection: Connection, source: PageSource, question: PageQuery, stamp: str | None
    ) -> int:
        if stamp is None:
            return count(connection, source, question)
        known = self.counts.get(_counted(question))
        if known is None or known[0] != stamp:
            known = stamp, count(connection, source, question)
            if len(self.counts) >= MOST_COUNTS:
                self.counts.clear()
            self.counts[_counted(question)] = known
        return known[1]

    def _stamp(self, connection: Connection, as_of: Any) -> str | None:
        """What tells one state of the resource from another; None where nothing does.

        Of the past there is none: pruning takes history away, and leaves no stamp.
        """
        if as_of is not None:
            time_travel.set_as_of(connection, as_of)
            return None
        kinds, views = self.sources
        if kinds is None or self.readable.view is None:
            return None
        stamp = change_stamps.change_stamp(connection, kinds)
        if (made := change_stamps.views_stamp(stamp)) != views:
            # A view was made anew since: it may read other kinds now.
            kinds = lineage.view_sources(connection, self.readable.view).cacheable_kinds
            self.sources = kinds, made
            return self._stamp(connection, as_of)
        return stamp

    def _tag(
        self,
        stamp: str | None,
        request: Request,
        visible: tuple[str, ...],
        media_type: str | None,
    ) -> str | None:
        if stamp is None:
            return None
        asked = [request.url.query, request.headers.get("host"), media_type]
        said = [stamp, self.declared, visible, *asked]
        return f'"{hashlib.sha256(orjson.dumps(said)).hexdigest()[:32]}"'

    def _headers(self, tag: str | None) -> dict[str, str]:
        headers = {
            "Cache-Control": "private, no-cache" if tag else "no-store",
            "Vary": "Authorization, X-API-Key, Accept",
        }
        return headers | {"ETag": tag} if tag else headers


def _refuse_others(request: Request, *known: str) -> None:
    """Raise Problem for a parameter that nobody knows, as lists do."""
    for name in request.query_params:
        if name not in known:
            raise invalid_parameter(name[:100], "is not known here")


def _continued(line: str) -> bytes:
    """The rest of an object that goes on with the fields of *line*, of which there may be none."""
    return b"}" if line == "{}" else f",{line[1:]}".encode()


def _counted(question: PageQuery) -> str:
    """What the count of a question's rows depends on."""
    return repr((question.equal, question.bounds, question.search, question.searched))


def _is_known(headers: Mapping[str, str], request: Request) -> bool:
    """Whether the client has what it would be sent."""
    known = request.headers.get("if-none-match", "")
    tags = {tag.strip().removeprefix("W/") for tag in known.split(",")}
    return "ETag" in headers and bool(tags & {headers["ETag"], "*"})
