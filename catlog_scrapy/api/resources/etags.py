"""ETags and cache headers of resources."""

import datetime as dt
import hashlib
from collections.abc import Mapping

import orjson
from fastapi import Request
from sqlalchemy import Connection

from catlog_scrapy.api.resources.readable_resource import ReadableResource
from catlog_scrapy.store.views import change_stamps, lineage, time_travel


class ResourceStamps:
    """Change stamps of one resource: a stamp changes whenever the rows may have changed."""

    def __init__(self, resource: ReadableResource) -> None:
        self.resource = resource
        # The kinds that the view reads, and the views' stamp at the time of that lookup.
        self.kinds = resource.kinds
        self.views_stamp: str | None = None

    def kinds_at(self, as_of: dt.datetime | None) -> tuple[str, ...] | None:
        """Return the kinds of the stamp, None without a stamp.

        Rows as of a time change when history is pruned, too.
        """
        if self.kinds is None or as_of is None:
            return self.kinds
        return (*self.kinds, change_stamps.ALL_VERSIONS)

    def read(self, connection: Connection, as_of: dt.datetime | None) -> str | None:
        """Set the time of an as-of view, and return the stamp of the rows.

        None if nothing tells whether the rows have changed.
        """
        if as_of is not None:
            time_travel.set_as_of(connection, as_of)
        kinds = self.kinds_at(as_of)
        if kinds is None or self.resource.view is None:
            return None
        stamp = change_stamps.change_stamp(connection, kinds)
        if (views_stamp := change_stamps.views_stamp(stamp)) != self.views_stamp:
            # A view was created anew since the last lookup, and may read other kinds now.
            self.kinds = lineage.view_sources(connection, self.resource.view).cacheable_kinds
            self.views_stamp = views_stamp
            return self.read(connection, as_of)
        return stamp

    def is_current(self, stamp: str) -> bool:
        """Return whether no view was created since the last lookup of the kinds."""
        return change_stamps.views_stamp(stamp) == self.views_stamp


def make_etag(
    stamp: str | None,
    request: Request,
    *,
    declaration: str,
    visible: tuple[str, ...],
    media_type: str | None,
) -> str | None:
    """Return the ETag of a response, which depends on all that determines its content."""
    if stamp is None:
        return None
    content = [
        stamp,
        declaration,
        visible,
        # `request.url` would parse the whole URL.
        request.scope["query_string"].decode("latin-1"),
        request.headers.get("host"),
        media_type,
    ]
    return f'"{hashlib.sha256(orjson.dumps(content)).hexdigest()[:32]}"'


def cache_headers(etag: str | None = None) -> dict[str, str]:
    """Return the cache headers of a response with this ETag."""
    headers = {
        "Cache-Control": "private, no-cache" if etag else "no-store",
        "Vary": "Authorization, X-API-Key, Accept",
    }
    return headers | {"ETag": etag} if etag else headers


def is_not_modified(headers: Mapping[str, str], request: Request) -> bool:
    """Return whether the client has the response with these *headers* already."""
    given = request.headers.get("if-none-match", "")
    etags = {etag.strip().removeprefix("W/") for etag in given.split(",")}
    return "ETag" in headers and bool(etags & {headers["ETag"], "*"})
