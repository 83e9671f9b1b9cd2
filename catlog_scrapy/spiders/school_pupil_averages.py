"""The mean mark of each pupil in each subject."""

from collections.abc import Mapping
from typing import Any

from catlog_scrapy.base_spiders.change_feed import ChangeFeed, plain_number
from catlog_scrapy.items.school import PupilAverage


class SchoolPupilAverages(ChangeFeed):
    """Calculated by the platform from the marks, to two places, with a decimal comma.

    Read like any other kind, so it has a history, and its changes alone are asked for. Calculated
    here, it would need what a spider cannot have: the loaded marks.
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
        return {**super().item(entry), "mean": plain_number(entry.get("mean"))}
