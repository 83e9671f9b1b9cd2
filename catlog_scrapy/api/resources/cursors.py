"""Cursors: positions of pages, as clients send them back (keyset pagination)."""

import base64
import hashlib
from collections.abc import Sequence

import orjson

from catlog_scrapy.api.problems import invalid_parameter
from catlog_scrapy.store.reading.page_query import OrderTerm, PageSource

INVALID = "is not a valid cursor; use a cursor of `next` or `previous`"

# Texts of the order columns of a row.
Position = tuple[str | None, ...]


def decode_cursor(
    cursor: str, path: str, order: tuple[OrderTerm, ...], source: PageSource
) -> tuple[Position, bool]:
    """Return the position before or after the page, and whether the page ends there.

    Raises Problem 422 for an invalid cursor, and for a cursor of another resource or *order*.
    """
    try:
        digest, backwards, values = orjson.loads(base64.urlsafe_b64decode(cursor.encode("ascii")))
        position = tuple(values)
    except (ValueError, TypeError):
        raise invalid_parameter("cursor", INVALID) from None
    if digest != _digest(path, order, source):
        raise invalid_parameter("cursor", "belongs to another order; start with an empty cursor")
    ordered = {term.column for term in order}
    length = len(order) + sum(term.column not in ordered for term in source.order)
    is_text = all(value is None or isinstance(value, str) for value in position)
    if len(position) != length or not is_text or "\0" in "".join(filter(None, position)):
        raise invalid_parameter("cursor", INVALID)
    return position, bool(backwards)


def encode_cursor(
    path: str,
    order: tuple[OrderTerm, ...],
    source: PageSource,
    position: Sequence[str | None] | None,
    *,
    backwards: bool = False,
) -> str:
    """Return the cursor of the page after *position*, or before it if *backwards*."""
    content = orjson.dumps([_digest(path, order, source), backwards, position])
    return base64.urlsafe_b64encode(content).decode()


def _digest(path: str, order: tuple[OrderTerm, ...], source: PageSource) -> str:
    content = repr((path, order, source.order))
    return hashlib.sha256(content.encode()).hexdigest()[:8]
