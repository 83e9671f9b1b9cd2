"""Byte ranges: whether a 206 has the range that its request has asked for (RFC 9110, 14)."""

import re

from scrapy import Request
from scrapy.http import Response

# One range; an answer to several is a multipart body, which is not checked.
RANGE = re.compile(rb"\s*bytes\s*=\s*(\d*)\s*-\s*(\d*)\s*", re.IGNORECASE)
CONTENT_RANGE = re.compile(rb"\s*bytes\s+(\d+)-(\d+)/(\d+|\*)\s*", re.IGNORECASE)


def find_range_fault(request: Request, response: Response) -> str | None:
    """Return why a 206 lacks a part of the requested range; None if nothing shows it."""
    asked = RANGE.fullmatch(request.headers.get(b"Range") or b"")
    sent = CONTENT_RANGE.fullmatch(response.headers.get(b"Content-Range") or b"")
    if asked is None or sent is None:
        return None
    first, last = int(sent[1]), int(sent[2])
    total = None if sent[3] == b"*" else int(sent[3])
    wanted = _bounds(asked[1], asked[2], total)
    if wanted is None:
        return None
    sent_range = sent[0].strip().decode()
    if first > wanted[0] or last < wanted[1]:
        return (
            f"HTTP 206 with {sent_range!r} for the range {asked[0].strip().decode()!r}; if the"
            " spider requests the rest itself, list 206 in handle_httpstatus_list"
        )
    if len(response.body) <= last - first:
        return f"HTTP 206 with {len(response.body)} bytes for {sent_range!r}"
    return None


def _bounds(first: bytes, last: bytes, total: int | None) -> tuple[int, int] | None:
    """Return the first and the last byte of a requested range; None if they are unknown."""
    if first and last:
        return int(first), int(last) if total is None else min(int(last), total - 1)
    if total is None or not (first or last):
        return None
    return (int(first) if first else max(total - int(last), 0)), total - 1
