"""Learning platform: an API that lists the attempts of a time span.

Known of the original: requests with a client and a client_key for the attempts of a date, and user
ids that are missing or do not have 32 characters. Invented: the path, the form of the span and of
an attempt, client and key, the reply to a wrong key, all courses, tasks, learners and attempts,
their number, the two time zones, and every change. A change adds attempts to every day, as devices
do that were offline.

The attempts of a day depend only on its date.
"""

import datetime as dt
from collections.abc import Iterator
from hashlib import blake2b
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

from catlog_scrapy.demo.source import DemoReply, DemoRequest, DemoSource, World, json_reply

CLIENT = "demo-client"
CLIENT_KEY = "demo/key of+the client"

COURSES = {
    "Основы Python": ("Переменные", "Условия", "Циклы", "Функции", "Словари"),
    "SQL for analysts": ("SELECT", "JOIN", "GROUP BY", "Window functions"),
    "Statistika 📊": ("Prosek", "Varijansa", "Verovatnoća"),
}
# Time zones of learners. Only the second has daylight saving time.
ZONES = (ZoneInfo("Europe/Moscow"), ZoneInfo("Europe/Belgrade"))
LEARNERS = 120
# Attempts of a day: the minimum, and the maximum to add.
MIN_ATTEMPTS, MAX_EXTRA_ATTEMPTS = 220, 160
# Interval of attempts with a missing or shortened user id.
DEFECT_INTERVAL = 60
# Number of attempts that a change adds to a day.
LATE_ATTEMPTS = 3


def attempts(day: dt.date, step: int = 0) -> list[dict[str, Any]]:
    """Return the attempts of a UTC day after *step* changes, by time."""
    random = Random(f"learning {day}")
    count = MIN_ATTEMPTS + random.randrange(MAX_EXTRA_ATTEMPTS)
    found = [_attempt(day, number, random) for number in range(count)]
    late = Random(f"late {day}")
    found += [_attempt(day, count + number, late) for number in range(LATE_ATTEMPTS * step)]
    return sorted(found, key=lambda attempt: (_instant(attempt), attempt["id"]))


def _attempt(day: dt.date, number: int, random: Random) -> dict[str, Any]:
    learner = random.randrange(LEARNERS)
    course = random.choice(sorted(COURSES))
    is_submit = random.random() < 0.6
    made = dt.datetime.combine(day, dt.time(), dt.UTC)
    made += dt.timedelta(milliseconds=random.randrange(24 * 60 * 60 * 1000))
    return {
        "id": day.toordinal() * 100_000 + number,
        "user_id": _user_id(learner, number),
        "course": course,
        "task": random.choice(COURSES[course]),
        "attempt_type": "submit" if is_submit else "run",
        "is_correct": random.random() < 0.55 if is_submit else None,
        "created_at": made.astimezone(ZONES[learner % 2]).isoformat(timespec="milliseconds"),
    }


def _user_id(learner: int, number: int) -> str | None:
    user_id = blake2b(f"learner {learner}".encode(), digest_size=16).hexdigest()
    if number % DEFECT_INTERVAL == DEFECT_INTERVAL - 1:
        return None if number // DEFECT_INTERVAL % 2 else user_id[:-1]
    return user_id


def _instant(attempt: dict[str, Any]) -> dt.datetime:
    return dt.datetime.fromisoformat(attempt["created_at"])


def _between(start: dt.datetime, end: dt.datetime, step: int) -> Iterator[dict[str, Any]]:
    day = start.astimezone(dt.UTC).date()
    while day <= end.astimezone(dt.UTC).date():
        yield from (one for one in attempts(day, step) if start <= _instant(one) < end)
        day += dt.timedelta(days=1)


def respond(request: DemoRequest, world: World) -> DemoReply | None:
    """Serve `attempts?client=C&client_key=K&start=INSTANT&end=INSTANT`, the end excluded.

    Instants are ISO 8601 with an offset from UTC. A span has at most a week.
    """
    if request.path != "attempts":
        return None
    query = request.query
    if (query.get("client"), query.get("client_key")) != (CLIENT, CLIENT_KEY):
        return json_reply({"error": "unknown client, or wrong key"}, 401)
    try:
        start, end = (dt.datetime.fromisoformat(query.get(name, "")) for name in ("start", "end"))
    except ValueError:
        return json_reply({"error": "start and end are instants of ISO 8601"}, 400)
    if start.tzinfo is None or end.tzinfo is None or end - start > dt.timedelta(days=7):
        return json_reply({"error": "a span of a week at most, with offsets from UTC"}, 400)
    return json_reply(list(_between(start, end, world.step)))


SOURCE = DemoSource("learning", "learning", respond)
