"""Sources whose records are all in one JSON document."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urljoin

from scrapy import Request, Spider
from scrapy.http import Response


class JsonDocument(Spider):
    """Reads the array of objects at `base_url`/`path`. A subclass says what an object holds.

    Where the array is a part of the document, it says which one.
    """

    base_url: str = ""
    path: str

    async def start(self) -> AsyncIterator[Any]:
        yield Request(f"{self.base_url}/{self.path}")

    def parse(self, response: Response, **_: Any) -> Iterator[dict[str, Any]]:
        """Raises ValueError where the document is not an array of objects."""
        entries = self.entries(json.loads(response.body))
        if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
            raise ValueError(f"{response.url} is no array of objects: the source has changed.")
        for entry in entries:
            yield from self.items(entry)

    def entries(self, document: Any) -> Any:
        """The array in *document*; by default it is the whole."""
        return document

    def items(self, entry: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The items that *entry* holds, unvalidated: what it lacks is for the check to find."""
        raise NotImplementedError

    def absolute(self, link: Any) -> Any:
        """A *link* of the document as a URL; what is none is for the check to find."""
        try:
            return urljoin(f"{self.base_url}/{self.path}", link) if link else link
        except (TypeError, ValueError, AttributeError):
            return link
