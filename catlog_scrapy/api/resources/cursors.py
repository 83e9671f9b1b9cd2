"""Cursors: where a page begins, as clients carry it from one request to the next."""

import base64
import hashlib
from collections.abc import Sequence

import orjson

from catlog_scrapy.api.problems import invalid_parameter
from catlog_scrapy.store.reading.pages import OrderTerm, PageSource

NONE = "is none; take it from `next` or `previous`"


def position_of(
    cursor: str, path: str, order: tuple[OrderTerm, ...], source: PageSource
) -> tuple[tuple[str | None, ...], bool]:
    """What a cursor says: the position of the row behind which, or before which, a page is.

    Raises Problem for one of another resource (by its *path*), another *order*, or none at all.
    """
    try:
        digest, backwards, values = orjson.loads(base64.urlsafe_b64decode(cursor.encode("ascii")))
        position = tuple(values)
    except (ValueError, TypeError):
        raise invalid_parameter("cursor", NONE) from None
    if digest != _digest(path, order, source):
        raise invalid_parameter("cursor", "belongs to another order; begin with an empty one")
    is_text = all(value is None or isinstance(value, str) for value in position)
    whole = len(order) + sum(t.column not in {o.column for o in order} for t in source.order)
    if len(position) != whole or not is_text or "\0" in "".join(filter(None, position)):
        raise invalid_parameter("cursor", NONE)
    return position, bool(backwards)


def cursor_of(
    path: str,
    order: tuple[OrderTerm, ...],
    source: PageSource,
    position: Sequence[str | None] | None,
    *,
    backwards: bool = False,
) -> str:
    """The cursor of the page behind *position*; *backwards*, of the one before it."""
    said = orjson.dumps([_digest(path, order, source), backwards, position])
    return base64.urlsafe_b64encode(said).decode()


def _digest(path: str, order: tuple[OrderTerm, ...], source: PageSource) -> str:
    said = repr((path, order, source.order))
    return hashlib.sha256(said.encode()).hexdigest()[:8]
