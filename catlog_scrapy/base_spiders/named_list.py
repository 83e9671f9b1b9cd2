"""Lists of names that a source's other documents use."""

from collections.abc import Iterator
from typing import Any

from catlog_scrapy.base_spiders.json_document import JsonDocument


class NamedList(JsonDocument):
    """[{id, name, icon}]; the icon is a link, or null."""

    def items(self, entry: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield {
            "id": entry.get("id"),
            "name": entry.get("name"),
            "icon_url": self.absolute(entry["icon"]),
        }
