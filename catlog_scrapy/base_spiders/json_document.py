"""Sources that publish all records in one JSON document."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urljoin

from scrapy import Request, Spider
from scrapy.http import Response


class JsonDocument(Spider):
    """Spider that reads the array of objects at `base_url`/`path`.

    A subclass implements `items`, and `entries` if the array is only a part of the document.
    """

    base_url: str = ""
    path: str

    async def start(self) -> AsyncIterator[Any]:
        """Request the document."""
        yield Request(f"{self.base_url}/{self.path}")

    def parse(self, response: Response, **_: Any) -> Iterator[dict[str, Any]]:
        """Yield the items of all entries. Raises ValueError without an array of objects."""
        entries = self.entries(json.loads(response.body))
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ValueError(f"{response.url} has no array of objects: the source has changed.")
        for entry in entries:
            yield from self.items(entry)

    def entries(self, document: Any) -> Any:
        """Return the array of entries: by default, the whole *document*."""
        return document

    def items(self, entry: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the unvalidated items of *entry*. Validation finds missing fields."""
        raise NotImplementedError

    def absolute(self, link: Any) -> Any:
        """Return a *link* of the document as an absolute URL. Validation finds invalid links."""
        try:
            return urljoin(f"{self.base_url}/{self.path}", link) if link else link
        except (TypeError, ValueError, AttributeError):
            return link
