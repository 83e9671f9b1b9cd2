"""Saved pages of a source, and the items that its spider has to make of them.

`tests/pages/SPIDER/PAGE.html` is a page, `PAGE.items.json` beside it the golden result: whole
items, as their records are in JSON. A page that the spider's first request does not ask for, or
only with arguments, has a `PAGE.request.json` as well: see `PageRequest`.
"""

import asyncio
import inspect
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path
from typing import Any

from itemadapter import ItemAdapter
from pydantic import BaseModel, ConfigDict
from pydantic_core import to_jsonable_python
from scrapy import Request, Spider
from scrapy.crawler import Crawler
from scrapy.http import Response, TextResponse
from scrapy.responsetypes import responsetypes
from scrapy.settings import Settings
from scrapy.utils.conf import get_config
from scrapy.utils.misc import arg_to_iter

from catlog_scrapy.records.lookup import record_types
from catlog_scrapy.records.record import Record
from catlog_scrapy.records.yields import Batch, Cursor, Unchanged

# What stands for the provider's base_url, unless the arguments say another.
BASE_URL = "https://source.example"
GOLDEN_SUFFIX = ".items.json"
REQUEST_SUFFIX = ".request.json"


class PageRequest(BaseModel):
    """How a page is asked for, where the spider's first request is another or needs arguments.

    With `documents`, the page is a list of the JSON documents that a browser gathered, and the
    callback takes that list instead of a response.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str | None = None
    callback: str | None = None
    cb_kwargs: dict[str, Any] = {}
    meta: dict[str, Any] = {}
    arguments: dict[str, str] = {}
    documents: bool = False


@dataclass(frozen=True)
class SavedPage:
    """A saved page; `path` is its file, in UTF-8 where it is text."""

    path: Path

    @property
    def golden_path(self) -> Path:
        """Where its golden result is."""
        return self.path.with_suffix(GOLDEN_SUFFIX)

    @property
    def asked(self) -> PageRequest:
        """How it is asked for. Raises pydantic's ValidationError."""
        path = self.path.with_suffix(REQUEST_SUFFIX)
        return (
            PageRequest.model_validate_json(path.read_bytes()) if path.exists() else PageRequest()
        )

    def golden(self) -> list[dict[str, Any]]:
        """The golden result."""
        items: list[dict[str, Any]] = json.loads(self.golden_path.read_bytes())
        return items

    def write_golden(self, items: list[dict[str, Any]]) -> None:
        """Make *items* the golden result."""
        self.golden_path.write_text(_text(items) + "\n", encoding="utf-8")

    def results(self, spidercls: type[Spider]) -> list[Any]:
        """All that the spider yields from the page, requests included."""
        crawler = Crawler(spidercls, _project_settings())
        spider = spidercls.from_crawler(crawler, **{"base_url": BASE_URL, **self.asked.arguments})
        return asyncio.run(self._results(spider))

    def items(self, spidercls: type[Spider]) -> list[dict[str, Any]]:
        """The records that the spider makes of the page, as JSON shows them.

        Raises what the spider raises, pydantic's ValidationError and NotStorable for an item that
        is no record, and ValueError where two have the same key.
        """
        records = record_types(spidercls)
        items: list[dict[str, Any]] = []
        keys: set[tuple[str, str]] = set()
        for item, said in _items(self.results(spidercls)):
            record = getattr(item, "record", None) or said
            values = item if type(item) is dict else ItemAdapter(item).asdict()
            if not records:
                items.append(to_jsonable_python(values))
                continue
            if record is None and len(records) > 1:
                raise ValueError(f"{label(self.path)} gives an item that does not say its type.")
            built: Record = (record or records[0]).model_validate(values)
            key = built.kind, built.row()[0]
            if key in keys:
                raise ValueError(f"{label(self.path)} gives two {built.kind} of the key {key[1]}.")
            keys.add(key)
            items.append(built.model_dump(mode="json"))
        return items

    def check(self, spidercls: type[Spider]) -> None:
        """Raise AssertionError, saying what to do, unless the page gives the golden result."""
        golden, name = self.golden(), spidercls.name
        source = label(Path(inspect.getsourcefile(spidercls) or ""))
        fill = (
            f"Next: fill in {source} until this test shows the right items,"
            f" then write them down: scrapy golden {name}"
        )
        try:
            items = self.items(spidercls)
        except Exception as error:  # the boundary to the spider: it may raise anything
            if not golden:
                error.add_note(fill)
            raise
        if not items and not golden:
            raise AssertionError(f"{label(self.path)} gives no items. {fill}")
        if not golden:
            raise AssertionError(
                f"{label(self.golden_path)} is empty, and the page gives {len(items)} items, the"
                f" first of them\n{_text(items[:1])}\n{fill}"
            )
        if items != golden:
            difference = unified_diff(
                _text(golden).splitlines(), _text(items).splitlines(), "golden", "now", lineterm=""
            )
            raise AssertionError(
                f"{label(self.path)} gives other items than its golden result:\n"
                + "\n".join(difference)
                + f"\nIf they are right, write them down: scrapy golden --force {name}"
            )

    async def _results(self, spider: Spider) -> list[Any]:
        asked = self.asked
        request = Request(asked.url) if asked.url else await _first_request(spider)
        request = request.replace(
            meta={**request.meta, **asked.meta}, cb_kwargs={**request.cb_kwargs, **asked.cb_kwargs}
        )
        callback = getattr(spider, asked.callback or "", None) or request.callback or spider.parse
        page: Any = self._response(request)
        if asked.documents:
            page = json.loads(page.body)
        result = callback(page, **request.cb_kwargs)
        if inspect.isawaitable(result):
            result = await result
        if hasattr(result, "__aiter__"):
            return [one async for one in result]
        return list(arg_to_iter(result))

    def _response(self, request: Request) -> Response:
        body = self.path.read_bytes()
        kind = responsetypes.from_args(filename=self.path.name, body=body)
        if issubclass(kind, TextResponse):
            return kind(request.url, body=body, encoding="utf-8", request=request)
        return kind(request.url, body=body, request=request)


def saved_pages(folder: Path) -> list[SavedPage]:
    """The pages in *folder*, those of one spider, by name; without that folder there are none."""
    return [
        SavedPage(path)
        for path in sorted(folder.glob("*"))
        if not path.name.endswith((GOLDEN_SUFFIX, REQUEST_SUFFIX)) and not path.name.startswith(".")
    ]


def label(path: Path) -> str:
    """*path* as seen from here, which is shorter."""
    return os.path.relpath(path)


def _items(results: Iterable[Any]) -> Iterator[tuple[Any, type[Record] | None]]:
    """The items among *results*, with the record type that their batch names."""
    for one in results:
        if isinstance(one, Batch):
            yield from ((part, one.record) for part in one.items)
        elif ItemAdapter.is_item(one) and not isinstance(one, Unchanged | Cursor):
            yield one, None


def _project_settings() -> Settings:
    """Those of the project here. Scrapy's own way leaves its name in the environment."""
    settings = Settings()
    if module := get_config().get("settings", "default", fallback=None):
        settings.setmodule(module, "project")
    return settings


async def _first_request(spider: Spider) -> Request:
    async for one in spider.start():
        if isinstance(one, Request):
            return one
    raise ValueError(
        f"{spider.name} starts with no request; name the page's URL in its {REQUEST_SUFFIX}."
    )


def _text(items: list[dict[str, Any]]) -> str:
    return json.dumps(items, indent=1, ensure_ascii=False)
