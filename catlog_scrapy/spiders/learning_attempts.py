"""Attempts of a learning platform's learners on a date."""

import datetime as dt
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from scrapy import Request

from catlog_scrapy.base_spiders.json_document import JsonDocument
from catlog_scrapy.items.learning import LearningAttempt

# Record fields by the source's names. In catlog, `created_at` is the time of a record's first load.
FIELDS = {
    **{name: name for name in ("id", "user_id", "course", "task", "attempt_type", "is_correct")},
    "created_at": "made_at",
}


class LearningAttempts(JsonDocument):
    """Attempts: GET /attempts?client=C&client_key=K&start=INSTANT&end=INSTANT lists a time span.

    [{id, user_id, course, task, attempt_type, is_correct, created_at}]. User ids may be missing or
    broken, and attempts may arrive days late. A `date` is a day in `zone`, which may have 23 or 25
    hours. With `test`, only the first hour is read. `id_length` is the length of a valid user id.
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
        """Request the attempts of the date."""
        start, end = self.span()
        query = {
            "client": self.client,
            "client_key": self.client_key,
            "start": start.isoformat(),
            "end": end.isoformat(),
        }
        yield Request(f"{self.base_url}/{self.path}?{urlencode(query)}")

    def span(self) -> tuple[dt.datetime, dt.datetime]:
        """Return the first and the last instant of the request."""
        day, zone = dt.date.fromisoformat(self.date), ZoneInfo(self.zone)
        start, end = (
            dt.datetime.combine(day + dt.timedelta(days=days), dt.time(), zone).astimezone(dt.UTC)
            for days in (0, 1)
        )
        return start, start + dt.timedelta(hours=1) if self.test not in ("", "0") else end

    def items(self, entry: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the item of an attempt."""
        known = {field: entry[name] for name, field in FIELDS.items() if name in entry}
        yield {"day": self.date, **known}
