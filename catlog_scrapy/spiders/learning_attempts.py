"""What the learners of a platform tried on a date."""

import datetime as dt
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from scrapy import Request

from catlog_scrapy.base_spiders.json_document import JsonDocument
from catlog_scrapy.items.learning import LearningAttempt

# The source's names of what a record has; `created_at` is when catlog came to know a record.
FIELDS = {
    **{name: name for name in ("id", "user_id", "course", "task", "attempt_type", "is_correct")},
    "created_at": "made_at",
}


class LearningAttempts(JsonDocument):
    """GET /attempts?client=C&client_key=K&start=INSTANT&end=INSTANT answers for that span.

    [{id, user_id, course, task, attempt_type, is_correct, created_at}]; user ids may be missing or
    broken, and attempts may come days late. A `date` is a day of `zone`, which may have 23 or 25
    hours; with `test`, only the first of them is read. `id_length` is that of a user id.
    """

    name = "learning_attempts"
    record = LearningAttempt
    path = "attempts"
    client: str = ""
    client_key: str = ""
    date: str = ""
    zone: str = "Europe/Moscow"
    id_length: str = "32"
    test: str = ""

    async def start(self) -> AsyncIterator[Any]:
        start, end = self.span()
        query = {
            "client": self.client,
            "client_key": self.client_key,
            "start": start.isoformat(),
            "end": end.isoformat(),
        }
        yield Request(f"{self.base_url}/{self.path}?{urlencode(query)}")

    def span(self) -> tuple[dt.datetime, dt.datetime]:
        """The instants at which what is asked for begins and ends."""
        day, zone = dt.date.fromisoformat(self.date), ZoneInfo(self.zone)
        start, end = (
            dt.datetime.combine(day + dt.timedelta(days=days), dt.time(), zone).astimezone(dt.UTC)
            for days in (0, 1)
        )
        return start, start + dt.timedelta(hours=1) if self.test not in ("", "0") else end

    def items(self, entry: dict[str, Any]) -> Iterator[dict[str, Any]]:
        known = {ours: entry[theirs] for theirs, ours in FIELDS.items() if theirs in entry}
        yield {"day": self.date, **known}
