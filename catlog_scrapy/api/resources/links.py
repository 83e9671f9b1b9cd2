"""Where a page's neighbours are."""

import re
from urllib.parse import quote, urlencode

from fastapi import Request

HOST = re.compile(r"[A-Za-z0-9.-]+(:\d{1,5})?|\[[0-9A-Fa-f:.]+\](:\d{1,5})?")


def page_url(request: Request, **changed: object) -> str:
    """The URL of *request* with these query parameters in place of its own; absolute where the

    client has named the host that it asked.
    """
    given = request.query_params.multi_items()
    kept = [(name, value) for name, value in given if name not in changed]
    query = urlencode([*kept, *((name, str(value)) for name, value in changed.items())])
    # As it was asked: what is escaped in a key stays so.
    path = quote(request.scope["catlog.path"], safe="/%")
    host = request.headers.get("host", "")
    base = f"{request.url.scheme}://{host}" if HOST.fullmatch(host) else ""
    return f"{base}{path}?{query}"
