"""School platform: full lists by pages, a change feed, and a login that expires.

Known of the original: it has persons, organisations, classes, pupils, marks and computed data. Its
client collects created, updated and deleted records separately, in chunks of 500, and computed data
after their sources. Invented: all paths, fields, names and numbers, the login, and every change.

POST `login` {user, password} returns {token}. A token is valid until the next change of the world.
Other requests without a valid token get status 401.

GET `KIND?page=1&per_page=500` lists the records by id: {cursor, total, items, next}. `cursor` is
the instant of the first page. The pages of `next` show the state at that instant.

GET `KIND/changes?since=INSTANT` lists the changes after *since* by time: {cursor, total, changes:
[{op, at, id, data}], next}. `op` is created, updated or deleted.

A step of the world is a day. Each step creates, updates and deletes about 1 of 100 records, and at
least 1 of the small kinds. A pupil leaves with its person, marks and averages. The first record
created in a step comes late: its time is five minutes before the step, when a client may have read
the feed already.
"""

import datetime as dt
import hashlib
from collections.abc import Iterator, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

import orjson

from catlog_scrapy.demo.source import DemoReply, DemoRequest, DemoSource, World, json_reply

ROOT = "/school"
# The valid login.
USER, PASSWORD = "rdm-collector", "пароль-2026"
PAGE_SIZE, MAX_PAGE_SIZE = 500, 1000

MOSCOW, BELGRADE = ZoneInfo("Europe/Moscow"), ZoneInfo("Europe/Belgrade")
# The instant of step 0. Belgrade's daylight saving time begins in the second night after it.
BEGINNING = dt.datetime(2026, 3, 27, 21, tzinfo=MOSCOW)
FIRST_OF_SEPTEMBER = dt.date(2025, 9, 1)
SCHOOL_DAYS = (BEGINNING.date() - FIRST_OF_SEPTEMBER).days
DAY, LATE = dt.timedelta(days=1), dt.timedelta(minutes=5)

KINDS = ("persons", "organisations", "classes", "pupils", "marks", "averages")
ADULTS, PUPILS, MOVING = 500, 1500, 5
# The last organisation and the last class are replaced every day.
ORGANISATIONS, CLASSES = 20, 60
MARKS = 60  # of each pupil at the beginning
MARKS_A_DAY = 300

SUBJECTS = (
    *("Алгебра", "Геометрия", "Русский язык", "Литература", "История", "География"),
    *("Биология", "Физика", "Химия", "Информатика", "Српски језик", "Физкультура"),
)
VALUES = ("2", "3", "3,5", "4", "4", "4,5", "5", "5")
COMMENTS = (None, None, None, None, "Молодец! 👏", None, "Контрольная", None, None, "у доски")
SURNAMES = ("Иванов", "Петров", "Гарипов", "Сафин", "Ёлкин", "Кузнецов", "Соловьёв", "Хасанов")
FIRST_NAMES = ("Алёна", "Тимур", "Мария", "Артём", "Айгуль", "Ђорђе", "Љубица", "Егор", "Зоя")
# Names in right-to-left scripts, which are shown between left-to-right text.
OTHERS = (("العلي", "سارة"), ("לוי", "נועה"), ("O’Neill-Šašić", "Zoë"))

Entry = dict[str, Any]
# The records of every kind by their ids.
State = dict[str, dict[Any, Entry]]


class FeedChange(NamedTuple):
    """Entry of the change feed. `data` is the record at that time, or None if it was deleted."""

    op: str
    at: dt.datetime
    id: Any
    data: Entry | None


def now(step: int) -> dt.datetime:
    """Return the platform's time after *step* changes."""
    return BEGINNING + step * DAY


def token(step: int) -> str:
    """Return the token that is valid only after *step* changes."""
    return hashlib.sha256(f"school {step}".encode()).hexdigest()[:32]


@lru_cache(maxsize=4)
def state(step: int) -> Mapping[str, Mapping[Any, Entry]]:
    """Return all records after *step* changes, each kind by id."""
    left, arrived = MOVING * step, PUPILS + MOVING * step
    pupils = range(left + 1, arrived + 1)
    adults = range(1, ADULTS + 1)
    marks = {
        number: mark
        for number, mark in (state(step - 1)["marks"] if step else {}).items()
        if mark["pupil"] > left
    }
    marks |= {mark["id"]: mark for mark in _new_marks(step)}
    for number in [one for one in marks if step and one % MARKS_A_DAY == step % MARKS_A_DAY]:
        marks[number] = {**marks[number], "value": VALUES[(number + step) % len(VALUES)]}
    made: State = {
        "persons": {
            number: _person(number, step) for number in (*adults, *(ADULTS + n for n in pupils))
        },
        "organisations": {
            number: _organisation(number, step)
            for number in (*range(1, ORGANISATIONS), ORGANISATIONS + step)
        },
        "classes": {
            number: _class(number, step) for number in (*range(1, CLASSES), CLASSES + step)
        },
        "pupils": {number: _pupil(number, step) for number in pupils},
        "marks": marks,
    }
    return {**made, "averages": _averages(marks)}


def _touches(number: int, step: int, turns: int) -> int:
    """Return the number of changes to *number*, if each step changes one of *turns* in turn."""
    turn = number % turns or turns
    return (step + turns - turn) // turns


def _person(number: int, step: int) -> Entry:
    surname, first = SURNAMES[number % len(SURNAMES)], FIRST_NAMES[number % len(FIRST_NAMES)]
    if number % 100 < len(OTHERS):
        surname, first = OTHERS[number % 100]
    return {
        "id": number,
        "lastName": surname,
        "firstName": first,
        "birthDate": str(dt.date(1970 if number <= ADULTS else 2010, 1, 1) + number * DAY),
        "email": f"p{number}@school.example" if number % 7 else None,
        "phone": f"+7 843 {number:05}-{_touches(number, step, 250)}",
    }


def _zone(organisation: int) -> ZoneInfo:
    return BELGRADE if organisation % 5 == 4 else MOSCOW


def _organisation(number: int, step: int) -> Entry:
    zone = _zone(number)
    name = f"Основна школа бр. {number}" if zone is BELGRADE else f"Школа № {number}"
    return {
        "id": number,
        "name": name if number < ORGANISATIONS else f"Курсы «Абитуриент-{number}»",
        "city": "Београд" if zone is BELGRADE else "Казань",
        "timezone": zone.key,
        "places": 300 + 10 * _touches(number, step, ORGANISATIONS),
    }


def _organisation_of_class(number: int) -> int:
    return 1 + number % (ORGANISATIONS - 1)


def _class(number: int, step: int) -> Entry:
    year = 1 + number % 11
    return {
        "id": number,
        "organisation": _organisation_of_class(number),
        "name": f"{year}«{'АБВГДЂЖ'[number % 7]}»" if number < CLASSES else f"Набор {number}",
        "year": year,
        "teacher": 1 + (number + _touches(number, step, CLASSES)) % ADULTS,
    }


def _class_of_pupil(number: int, step: int) -> int:
    return 1 + (number + _touches(number, step, 250)) % (CLASSES - 1)


def _pupil(number: int, step: int) -> Entry:
    return {
        "id": number,
        "person": ADULTS + number,
        "class": _class_of_pupil(number, step),
        "since": str(FIRST_OF_SEPTEMBER + max(0, number - PUPILS + 1035) // MOVING * DAY),
    }


def _new_marks(step: int) -> Iterator[Entry]:
    """Yield the marks given in *step*, or all initial marks for step 0."""
    last = PUPILS * MARKS + MARKS_A_DAY * step
    for number in range(last - MARKS_A_DAY + 1 if step else 1, last + 1):
        if step:
            pupil, day = MOVING * step + 1 + (number * 7 + step) % PUPILS, SCHOOL_DAYS + step
        else:
            pupil, day = 1 + (number - 1) // MARKS, number * 11 % (SCHOOL_DAYS + 1)
        zone = _zone(_organisation_of_class(_class_of_pupil(pupil, step)))
        lesson = dt.time(8 + number % 6, 30, tzinfo=zone)
        given = dt.datetime.combine(FIRST_OF_SEPTEMBER + day * DAY, lesson)
        yield {
            "id": number,
            "pupil": pupil,
            "subject": SUBJECTS[number % len(SUBJECTS)],
            # Some subjects are easier than others, and some pupils better.
            "value": VALUES[(number * number % 11 + number % 12 % 4 + pupil % 3) // 2],
            "givenAt": given.isoformat(),
            "comment": COMMENTS[number // 3 % len(COMMENTS)],
        }


def _averages(marks: Mapping[int, Entry]) -> dict[Any, Entry]:
    """Return the mean of each pupil's marks in each subject, to two places."""
    values: dict[tuple[int, str], list[Decimal]] = {}
    for mark in marks.values():
        about = mark["pupil"], mark["subject"]
        values.setdefault(about, []).append(DECIMALS[mark["value"]])
    return {
        f"{pupil}-{SUBJECTS.index(subject) + 1}": {
            "id": f"{pupil}-{SUBJECTS.index(subject) + 1}",
            "pupil": pupil,
            "subject": subject,
            "marks": len(given),
            "mean": f"{sum(given) / len(given):.2f}".replace(".", ","),
        }
        for (pupil, subject), given in sorted(values.items())
    }


DECIMALS = {value: Decimal(value.replace(",", ".")) for value in VALUES}


@lru_cache(maxsize=256)
def changes(kind: str, step: int) -> tuple[FeedChange, ...]:
    """Return the changes of *kind* in *step*, by time."""
    before, after = state(step - 1)[kind], state(step)[kind]
    created = [number for number in after if number not in before]
    updated = [number for number in after if number in before and after[number] != before[number]]
    deleted = [number for number in before if number not in after]
    ops = [("created", n) for n in created[1:]] + [("updated", n) for n in updated]
    ops += [("deleted", n) for n in deleted]
    late = [FeedChange("created", now(step - 1) - LATE, n, after[n]) for n in created[:1]]
    return (
        *late,
        *(
            FeedChange(op, now(step - 1) + DAY * (place + 1) // len(ops), number, after.get(number))
            for place, (op, number) in enumerate(ops)
        ),
    )


def feed(kind: str, since: dt.datetime, step: int) -> list[FeedChange]:
    """Return the changes of *kind* after *since* that are known after *step* changes."""
    found = [
        change
        for day in range(1, step + 1)
        if now(day) > since
        for change in changes(kind, day)
        if change.at > since
    ]
    return sorted(found, key=lambda change: change.at)


def respond(request: DemoRequest, world: World) -> DemoReply | None:
    """Serve `login`, `KIND` and `KIND/changes`, with status 400 for an invalid query."""
    if request.path == "login":
        return _login(request, world.step)
    kind, _, what = request.path.partition("/")
    if kind not in KINDS or what not in ("", "changes"):
        return None
    given = {name.lower(): value for name, value in request.headers.items()}
    if given.get("authorization") != f"Bearer {token(world.step)}":
        return json_reply({"error": "log in"}, 401)
    try:
        return _page(request, kind, world.step, changing=what == "changes")
    except (KeyError, ValueError) as error:
        return json_reply({"error": f"bad query: {error}"}, 400)


def _login(request: DemoRequest, step: int) -> DemoReply:
    try:
        right = orjson.loads(request.body) == {"user": USER, "password": PASSWORD}
    except orjson.JSONDecodeError:
        return json_reply({"error": "no JSON"}, 400)
    if not right:
        return json_reply({"error": "wrong user or password"}, 403)
    return json_reply({"token": token(step)})


def _page(request: DemoRequest, kind: str, step: int, *, changing: bool) -> DemoReply:
    """Return a page of the list at the instant `as_of`. Raises KeyError and ValueError."""
    query = dict(request.query)
    if "as_of" in query:
        step = min(step, (_instant(query["as_of"]) - BEGINNING) // DAY)
    page, size = int(query.get("page", 1)), int(query.get("per_page", PAGE_SIZE))
    if page < 1 or not 1 <= size <= MAX_PAGE_SIZE or step < 0:
        raise ValueError("page, per_page or as_of")
    listed: list[Any] = (
        [change._asdict() for change in feed(kind, _instant(query["since"]), step)]
        if changing
        else list(state(step)[kind].values())
    )
    following = {"page": page + 1, "per_page": size, "as_of": now(step).isoformat()}
    following |= {name: value for name, value in query.items() if name not in following}
    return json_reply(
        {
            "cursor": now(step).isoformat(),
            "total": len(listed),
            "changes" if changing else "items": listed[(page - 1) * size : page * size],
            "next": f"{ROOT}/{request.path}?{urlencode(following)}"
            if page * size < len(listed)
            else None,
        }
    )


def _instant(text: str) -> dt.datetime:
    instant = dt.datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError(f"{text} has no time zone")
    return instant


SOURCE = DemoSource("school", "school", respond)
