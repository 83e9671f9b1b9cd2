"""Saved pages of a source, and the golden items that its spider must extract from them.

`tests/pages/SPIDER/PAGE.html` is a page, and `PAGE.items.json` beside it is the golden result:
whole items, in their records' JSON. A page that the spider's first request does not fetch, or
fetches only with arguments, also has a `PAGE.request.json`; see `PageRequest`.
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

from catlog_scrapy.plurals import counted
from catlog_scrapy.records.lookup import record_types
from catlog_scrapy.records.record import Record
from catlog_scrapy.records.yields import Batch, Cursor, Unchanged

# Default of the provider's base_url.
BASE_URL = "https://source.example"
GOLDEN_SUFFIX = ".items.json"
REQUEST_SUFFIX = ".request.json"


class PageRequest(BaseModel):
    """Request of a page, where the spider's first request differs or needs arguments.

    With `documents`, the page is a list of the JSON documents that a browser page requested, and
    the callback gets that list instead of a response.
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
    """Saved page in the file `path`, in UTF-8 if it is text."""

    path: Path

    @property
    def golden_path(self) -> Path:
        """Return the path of the golden result."""
        return self.path.with_suffix(GOLDEN_SUFFIX)

    @property
    def request(self) -> PageRequest:
        """Return the page's request. Raises pydantic's ValidationError."""
        path = self.path.with_suffix(REQUEST_SUFFIX)
        return (
            PageRequest.model_validate_json(path.read_bytes()) if path.exists() else PageRequest()
        )

    def golden(self) -> list[dict[str, Any]]:
        """Return the golden result."""
        items: list[dict[str, Any]] = json.loads(self.golden_path.read_bytes())
        return items

    def write_golden(self, items: list[dict[str, Any]]) -> None:
        """Write *items* as the golden result."""
        self.golden_path.write_text(_text(items) + "\n", encoding="utf-8")

    def results(self, spidercls: type[Spider]) -> list[Any]:
        """Return all that the spider yields from the page, requests included."""
        crawler = Crawler(spidercls, _project_settings())
        spider = spidercls.from_crawler(crawler, **{"base_url": BASE_URL, **self.request.arguments})
        return asyncio.run(self._results(spider))

    def items(self, spidercls: type[Spider]) -> list[dict[str, Any]]:
        """Return the spider's records from the page, in JSON's types.

        Raises what the spider raises, pydantic's ValidationError or NotStorable for an invalid
        item, and ValueError for two records with one key.
        """
        records = record_types(spidercls)
        items: list[dict[str, Any]] = []
        keys: set[tuple[str, str]] = set()
        for item, batch_type in _items(self.results(spidercls)):
            record = getattr(item, "record", None) or batch_type
            values = item if type(item) is dict else ItemAdapter(item).asdict()
            if not records:
                items.append(to_jsonable_python(values))
                continue
            if record is None and len(records) > 1:
                raise ValueError(
                    f"{label(self.path)} gives an item without its type; yield Type.draft(...)."
                )
            built: Record = (record or records[0]).model_validate(values)
            key = built.kind, built.row()[0]
            if key in keys:
                raise ValueError(
                    f"{label(self.path)} gives two {built.kind} with the key {key[1]}."
                )
            keys.add(key)
            items.append(built.model_dump(mode="json"))
        return items

    def check(self, spidercls: type[Spider]) -> None:
        """Raise AssertionError with the remedy, unless the page gives the golden result."""
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
                f"{label(self.golden_path)} is empty, and the page gives"
                f" {counted(len(items), 'item')}, the first:\n{_text(items[:1])}\n{fill}"
            )
        if items != golden:
            difference = unified_diff(
                _text(golden).splitlines(), _text(items).splitlines(), "golden", "now", lineterm=""
            )
            raise AssertionError(
                f"{label(self.path)} gives other items than its golden result:\n"
                + "\n".join(difference)
                + f"\nIf the new items are right, save them with scrapy golden --force {name}"
            )

    async def _results(self, spider: Spider) -> list[Any]:
        saved = self.request
        request = Request(saved.url) if saved.url else await _first_request(spider)
        request = request.replace(
            meta={**request.meta, **saved.meta}, cb_kwargs={**request.cb_kwargs, **saved.cb_kwargs}
        )
        callback = getattr(spider, saved.callback or "", None) or request.callback or spider.parse
        page: Any = self._response(request)
        if saved.documents:
            page = json.loads(page.body)
        result = callback(page, **request.cb_kwargs)
        if inspect.isawaitable(result):
            result = await result
        if hasattr(result, "__aiter__"):
            return [item async for item in result]
        return list(arg_to_iter(result))

    def _response(self, request: Request) -> Response:
        body = self.path.read_bytes()
        kind = responsetypes.from_args(filename=self.path.name, body=body)
        if issubclass(kind, TextResponse):
            return kind(request.url, body=body, encoding="utf-8", request=request)
        return kind(request.url, body=body, request=request)


def saved_pages(folder: Path) -> list[SavedPage]:
    """Return the pages in the *folder* of one spider, by name; none if the folder is missing."""
    return [
        SavedPage(path)
        for path in sorted(folder.glob("*"))
        if not path.name.endswith((GOLDEN_SUFFIX, REQUEST_SUFFIX)) and not path.name.startswith(".")
    ]


def label(path: Path) -> str:
    """Return *path* relative to the current folder."""
    return os.path.relpath(path)


def _items(results: Iterable[Any]) -> Iterator[tuple[Any, type[Record] | None]]:
    """Generate the items among *results*, each with the record type of its batch."""
    for result in results:
        if isinstance(result, Batch):
            yield from ((item, result.record) for item in result.items)
        elif ItemAdapter.is_item(result) and not isinstance(result, Unchanged | Cursor):
            yield result, None


def _project_settings() -> Settings:
    """Load the current project's settings, without Scrapy's side effect on the environment."""
    settings = Settings()
    if module := get_config().get("settings", "default", fallback=None):
        settings.setmodule(module, "project")
    return settings


async def _first_request(spider: Spider) -> Request:
    async for item in spider.start():
        if isinstance(item, Request):
            return item
    raise ValueError(
        f"{spider.name} starts with no request; set the page's URL in its {REQUEST_SUFFIX}."
    )


def _text(items: list[dict[str, Any]]) -> str:
    return json.dumps(items, indent=1, ensure_ascii=False)
