"""Links to the neighbours of a page."""

import re
from urllib.parse import quote, urlencode

from fastapi import Request

from catlog_scrapy.api.path_prefix import public_path
from catlog_scrapy.api.resources.cursors import encode_cursor
from catlog_scrapy.store.reading.page_query import PageQuery, PageSource
from catlog_scrapy.store.reading.pages import Page

HOST = re.compile(r"[A-Za-z0-9.-]+(:\d{1,5})?|\[[0-9A-Fa-f:.]+\](:\d{1,5})?")


def page_url(request: Request, **changed: object) -> str:
    """Return the URL of *request* with *changed* query parameters.

    The URL is absolute if the request has a valid Host header.
    """
    given = request.query_params.multi_items()
    kept = [(name, value) for name, value in given if name not in changed]
    query = urlencode([*kept, *((name, str(value)) for name, value in changed.items())])
    # The raw path: escaped characters of a key stay escaped.
    path = public_path(request, quote(request.scope["catlog.path"], safe="/%"))
    host = request.headers.get("host", "")
    base = f"{request.scope['scheme']}://{host}" if HOST.fullmatch(host) else ""
    return f"{base}{path}?{query}"


def offset_links(request: Request, query: PageQuery, total: int) -> tuple[str | None, str | None]:
    """Return the URLs of the next and the previous page by offset."""
    following = query.offset + query.limit
    preceding = max(0, query.offset - query.limit)
    return (
        page_url(request, limit=query.limit, offset=following) if following < total else None,
        page_url(request, limit=query.limit, offset=preceding) if query.offset else None,
    )


def cursor_links(
    request: Request, path: str, source: PageSource, query: PageQuery, page: Page
) -> tuple[str | None, str | None]:
    """Return the URLs of the next and the previous page by cursor."""
    has_next = bool(page.last) and (page.has_more or query.backwards)
    has_previous = bool(page.first) and (
        page.has_more if query.backwards else query.after is not None
    )
    next_url = previous_url = None
    if has_next:
        cursor = encode_cursor(path, query.order, source, page.last)
        next_url = page_url(request, cursor=cursor)
    if has_previous:
        cursor = encode_cursor(path, query.order, source, page.first, backwards=True)
        previous_url = page_url(request, cursor=cursor)
    return next_url, previous_url
