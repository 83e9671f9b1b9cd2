"""Mean mark of each pupil in each subject."""

from collections.abc import Mapping
from typing import Any

from catlog_scrapy.base_spiders.change_feed import ChangeFeed, plain_number
from catlog_scrapy.items.school import PupilAverage


class SchoolPupilAverages(ChangeFeed):
    """Means that the platform computes from the marks, to two places, with a decimal comma.

    They are read like any other kind, so they have a history and change feed. The spider could not
    compute them, because a spider has no access to the loaded marks.
    """

    name = "school_pupil_averages"
    record = PupilAverage
    path = "averages"
    fields = {
        "id": "id",
        "pupil_id": "pupil",
        "subject": "subject",
        "marks": "marks",
        "mean": "mean",
    }

    def item(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Return the item of a mean."""
        return {**super().item(entry), "mean": plain_number(entry.get("mean"))}
