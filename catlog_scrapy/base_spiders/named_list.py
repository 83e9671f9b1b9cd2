"""Reference lists: names that a source's other documents use."""

from collections.abc import Iterator
from typing import Any

from catlog_scrapy.base_spiders.json_document import JsonDocument


class NamedList(JsonDocument):
    """Spider of a list [{id, name, icon}]. The icon is a link, or null."""

    def items(self, entry: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the item of an entry."""
        yield {
            "id": entry.get("id"),
            "name": entry.get("name"),
            "icon_url": self.absolute(entry["icon"]),
        }
