"""The body of a batch of results: read within bounds, parsed strictly, validated record by record."""

import asyncio
import io
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from fastapi import Request
from starlette.requests import ClientDisconnect

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
# Records of a batch: however small they are, each takes memory.
MAX_BATCH_RECORDS = 100_000
# Rejections that are reported in the answer.
MAX_REPORTED_REJECTIONS = 100
LIST_NAMES = ("records", "unchanged", "removed")


@dataclass
class ParsedBatch:
    """What a body came to: rows, how many items were `rejected`, and the first of them.

    `reported` are those that the answer tells: the list's name, the index in it, and the reasons.
    """

    rows: list[Row] = field(default_factory=list)
    rejected: int = 0
    rejections: list[Rejection] = field(default_factory=list)
    reported: list[tuple[str, int, list[str]]] = field(default_factory=list)


def media_type(request: Request) -> str:
    """JSON or NDJSON, as the request says. Raises Problem 415."""
    name, _, rest = request.headers.get("content-type", "").partition(";")
    media = name.strip().lower()
    charset = rest.partition("charset=")[2].strip(' "').lower()
    if media not in (JSON, NDJSON) or charset not in ("", "utf-8", "utf8"):
        raise Problem(415, f"send {JSON} or {NDJSON}, in UTF-8.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(415, "send the batch as it is, without a Content-Encoding.")
    return media


async def read_body(request: Request, *, most: int, seconds: float) -> bytes:
    """The body, of *most* bytes, arrived within *seconds*. Raises Problem 400, 408, 413."""
    too_large = Problem(
        413,
        f"a batch has at most {most} bytes; send its records in several.",
        headers={"Connection": "close"},
    )
    length = request.headers.get("content-length", "")
    if length.isdecimal() and (len(length) > 18 or int(length) > most):
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most:
                    raise too_large
    except TimeoutError:
        late = f"the batch had not arrived after {seconds:g} s; send smaller ones."
        raise Problem(408, late, headers={"Connection": "close"}) from None
    except ClientDisconnect:
        raise Problem(400, "the request ended in the middle of its body.") from None
    return bytes(body)


def parse_batch(body: bytes, media: str, kinds: Sequence[Mapping[str, Any]]) -> ParsedBatch:
    """What *body*, of the media type *media*, brings for an operation of *kinds*.

    Raises Problem 422 where it cannot be read; then nothing of it counts.
    """
    validator = ItemValidator(
        {record.kind: record for record in operation_record_types(None, kinds)}
    )
    batch = ParsedBatch()
    items = _items_of_lines(body) if media == NDJSON else _items(body)
    for number, (name, index, item) in enumerate(items, 1):
        if number > MAX_BATCH_RECORDS:
            _refuse(
                "body", f"has more than {MAX_BATCH_RECORDS} records; send them in several batches"
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
                batch.reported.append((name, index, [clean(reason) for reason in reasons]))
    return batch


def _items_of_lines(body: bytes) -> Iterator[tuple[str, int, Any]]:
    index = 0
    for number, line in enumerate(io.BytesIO(body), 1):
        if line.strip():
            yield "records", index, _parsed(line, f"line {number}: ")
            index += 1


def _items(body: bytes) -> Iterator[tuple[str, int, Any]]:
    document = _parsed(body, "")
    if not isinstance(document, dict):
        _refuse("body", 'is no object; write {"records": [], "unchanged": [], "removed": []}')
    for name, items in document.items():
        if name not in LIST_NAMES:
            _refuse("body", f"has an unknown member {ascii(name)[:100]}; there are: {LIST_NAMES}")
        if not isinstance(items, list):
            _refuse(f"body.{name}", "is no list")
    for name in LIST_NAMES:
        for index, item in enumerate(document.get(name, ())):
            match name:
                case "unchanged":
                    yield name, index, Unchanged(item)
                case "removed":
                    yield name, index, Removed(item)
                case _:
                    yield name, index, item


def _parsed(text: bytes, place: str) -> Any:
    try:
        return json.loads(
            text.decode(),
            object_pairs_hook=_object,
            parse_constant=_no_json,
            parse_int=_integer,
            parse_float=_double,
        )
    except json.JSONDecodeError as error:
        where = place or f"line {error.lineno}: "
        _refuse("body", f"{where}{error.msg} at column {error.colno}")
    except UnicodeDecodeError as error:
        _refuse("body", f"{place}no UTF-8 at byte {error.start}")
    except RecursionError:
        _refuse("body", f"{place}it is nested too deeply")
    except ValueError as error:
        _refuse("body", f"{place}{error}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"an object has {ascii(twice)[:100]} twice")
    return made


def _no_json(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")


def _integer(digits: str) -> int:
    if len(digits) > 1000:
        raise ValueError("a number has more than 1000 digits")
    return int(digits)


def _double(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits[:40]} is out of range; send it as a string")
    return number


def _refuse(where: str, why: str) -> NoReturn:
    raise Problem(422, "The batch cannot be read; nothing of it was stored.", errors=[(where, why)])
