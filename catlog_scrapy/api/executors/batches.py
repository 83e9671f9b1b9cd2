"""Batches of results: read with limits, parsed strictly, validated record by record."""

import asyncio
import io
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NoReturn, get_args

from fastapi import Request
from starlette.requests import ClientDisconnect

from catlog_scrapy.api.executors.messages import ListName, RejectedItem
from catlog_scrapy.api.problems import Problem
from catlog_scrapy.declarations.spiders import operation_record_types
from catlog_scrapy.records.validation import (
    ItemValidator,
    Rejection,
    Row,
    ValidatedItem,
    make_rejection,
)
from catlog_scrapy.records.yields import Removed, Unchanged
from catlog_scrapy.store.queue.results import MAX_REJECTED_ITEM_BYTES, MAX_REJECTED_ITEMS
from catlog_scrapy.store.sql import clean

JSON = "application/json"
NDJSON = "application/x-ndjson"
# The limit bounds memory: each record takes some, however small it is.
MAX_BATCH_RECORDS = 100_000
MAX_REPORTED_REJECTIONS = 100
MAX_INTEGER_DIGITS = 1000
LIST_NAMES: tuple[ListName, ...] = get_args(ListName)


class BatchItem(NamedTuple):
    """Item of a batch with its place: the name of its list and its position there."""

    list_name: ListName
    position: int
    item: Any


@dataclass
class ParsedBatch:
    """Rows to store and rejected items.

    `rejected` counts all rejected items. `rejections` are the first of them, to be stored;
    `reported` are the first of them for the response.
    """

    rows: list[Row] = field(default_factory=list)
    rejected: int = 0
    rejections: list[Rejection] = field(default_factory=list)
    reported: list[RejectedItem] = field(default_factory=list)


def request_media_type(request: Request) -> str:
    """Return the media type of the body, JSON or NDJSON. Raises Problem 415."""
    name, _, rest = request.headers.get("content-type", "").partition(";")
    media_type = name.strip().lower()
    charset = rest.partition("charset=")[2].strip(' "').lower()
    if media_type not in (JSON, NDJSON) or charset not in ("", "utf-8", "utf8"):
        raise Problem(415, f"send {JSON} or {NDJSON}, encoded in UTF-8")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(415, "send the batch without a Content-Encoding")
    return media_type


def declared_size(request: Request, max_bytes: int) -> int:
    """Return the size of the body in bytes; *max_bytes* if its header does not say.

    Raises Problem 413.
    """
    length = request.headers.get("content-length", "")
    if not length.isdecimal():
        return max_bytes
    if len(length) > 18 or int(length) > max_bytes:
        raise _too_large(max_bytes)
    return int(length)


def _too_large(max_bytes: int) -> Problem:
    return Problem(
        413,
        f"a batch has at most {max_bytes} bytes; send the records in several batches",
        headers={"Connection": "close"},
    )


async def read_body(request: Request, *, max_bytes: int, timeout_s: float) -> bytes:
    """Read the body. Raises Problem 400, 408 or 413."""
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_bytes:
                    raise _too_large(max_bytes)
    except TimeoutError:
        detail = f"the batch did not arrive within {timeout_s:g} s; send smaller batches"
        raise Problem(408, detail, headers={"Connection": "close"}) from None
    except ClientDisconnect:
        raise Problem(400, "the request ended before the end of its body") from None
    return bytes(body)


def parse_batch(body: bytes, media_type: str, kinds: Sequence[Mapping[str, Any]]) -> ParsedBatch:
    """Parse *body* and validate its items as records of *kinds*.

    Raises Problem 422 for a body that cannot be parsed; the batch is then refused as a whole.
    """
    validator = ItemValidator(
        {record.kind: record for record in operation_record_types(None, kinds)}
    )
    batch = ParsedBatch()
    items = _ndjson_items(body) if media_type == NDJSON else _json_items(body)
    for number, (list_name, position, item) in enumerate(items, 1):
        if number > MAX_BATCH_RECORDS:
            _unreadable(
                "body", f"has more than {MAX_BATCH_RECORDS} items; send them in several batches"
            )
        validated = ValidatedItem(item, batch.rows)
        try:
            validator.validate(item, None, validated)
        except RecursionError:
            validated.rejections.append(make_rejection(None, ["it is nested too deeply"]))
        for data, reasons in validated.rejections:
            batch.rejected += 1
            if len(batch.rejections) < MAX_REJECTED_ITEMS:
                batch.rejections.append((data[:MAX_REJECTED_ITEM_BYTES], reasons))
            if len(batch.reported) < MAX_REPORTED_REJECTIONS:
                errors = [clean(reason) for reason in reasons]
                batch.reported.append(RejectedItem(of=list_name, index=position, errors=errors))
    return batch


def _ndjson_items(body: bytes) -> Iterator[BatchItem]:
    index = 0
    for number, line in enumerate(io.BytesIO(body), 1):
        if line.strip():
            yield BatchItem("records", index, _parse(line, f"line {number}: "))
            index += 1


def _json_items(body: bytes) -> Iterator[BatchItem]:
    document = _parse(body, "")
    if not isinstance(document, dict):
        _unreadable(
            "body", 'is not an object; send {"records": [], "unchanged": [], "removed": []}'
        )
    for name, items in document.items():
        if name not in LIST_NAMES:
            known = ", ".join(LIST_NAMES)
            _unreadable("body", f"has an unknown member {ascii(name)[:100]}; use {known}")
        if not isinstance(items, list):
            _unreadable(f"body.{name}", "is not a list")
    for list_name in LIST_NAMES:
        for index, item in enumerate(document.get(list_name, ())):
            match list_name:
                case "unchanged":
                    yield BatchItem(list_name, index, Unchanged(item))
                case "removed":
                    yield BatchItem(list_name, index, Removed(item))
                case _:
                    yield BatchItem(list_name, index, item)


def _parse(text: bytes, place: str) -> Any:
    try:
        return json.loads(
            text.decode(),
            object_pairs_hook=_unique_members,
            parse_constant=_refuse_constant,
            parse_int=_parse_integer,
            parse_float=_parse_float,
        )
    except json.JSONDecodeError as error:
        line = place or f"line {error.lineno}: "
        _unreadable("body", f"{line}{error.msg} at column {error.colno}")
    except UnicodeDecodeError as error:
        _unreadable("body", f"{place}invalid UTF-8 at byte {error.start}")
    except RecursionError:
        _unreadable("body", f"{place}JSON is nested too deeply")
    except ValueError as error:
        _unreadable("body", f"{place}{error}")


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        [(duplicate, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"an object has the member {ascii(duplicate)[:100]} twice")
    return members


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not valid JSON")


def _parse_integer(digits: str) -> int:
    if len(digits) > MAX_INTEGER_DIGITS:
        raise ValueError(f"a number has more than {MAX_INTEGER_DIGITS} digits")
    return int(digits)


def _parse_float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits[:40]} is out of range; send it as a string")
    return number


def _unreadable(field_name: str, message: str) -> NoReturn:
    raise Problem(
        422,
        f"the batch cannot be parsed, and nothing of it is stored: {field_name} {message}",
        errors=[(field_name, message)],
    )
