"""Marks of pupils."""

from collections.abc import Mapping
from typing import Any

from catlog_scrapy.base_spiders.change_feed import ChangeFeed, plain_number
from catlog_scrapy.items.school import Mark


class SchoolMarks(ChangeFeed):
    """Marks with a decimal comma. A mark's time is its lesson's, in the school's time zone."""

    name = "school_marks"
    record = Mark
    path = "marks"
    fields = {
        "id": "id",
        "pupil_id": "pupil",
        "subject": "subject",
        "value": "value",
        "given_at": "givenAt",
        "comment": "comment",
    }

    def item(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Return the item of a mark."""
        return {**super().item(entry), "value": plain_number(entry.get("value"))}
