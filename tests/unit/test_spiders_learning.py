"""Spider of the learning platform: requests, records and refused documents."""

import datetime as dt
import json
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from pydantic import ValidationError
from scrapy.http import TextResponse

from catlog_scrapy.items.learning import LearningAttempt
from catlog_scrapy.spiders.learning_attempts import LearningAttempts
from tests.unit.test_spiders import PAGES, changed, first_requests, page, validated

API = "https://platform.example/learning"


def a_spider(**arguments: str) -> LearningAttempts:
    given = {"date": "2026-03-29", "client": "us", "client_key": "a key", **arguments}
    return LearningAttempts(base_url=API, **given)


def an_item(**fields: Any) -> dict[str, Any]:
    return {
        "id": 1,
        "day": "2026-03-29",
        "user_id": "0123456789abcdef" * 2,
        "course": "SQL",
        "task": "JOIN",
        "attempt_type": "submit",
        "is_correct": True,
        "made_at": "2026-03-29T12:00:00+03:00",
        **fields,
    }


def test_learning_attempts_match_the_golden_result() -> None:
    """Moscow and Belgrade have different clock changes, so local times are not in order."""
    spider = a_spider()
    response = page(spider, "2026-03-29.json", f"{API}/attempts")
    golden = (PAGES / spider.name / "2026-03-29.items.json").read_text(encoding="utf-8")
    found = validated(spider, list(spider.parse(response)))
    assert found == json.loads(golden)
    instants = [dt.datetime.fromisoformat(one["made_at"]) for one in found]
    assert instants == sorted(instants)
    assert [str(one.utcoffset()) for one in instants[1:4]] == ["1:00:00", "1:00:00", "2:00:00"]


@pytest.mark.parametrize(
    ("arguments", "start", "end"),
    [
        ({}, "2026-03-28T21:00:00+00:00", "2026-03-29T21:00:00+00:00"),
        ({"test": "1"}, "2026-03-28T21:00:00+00:00", "2026-03-28T22:00:00+00:00"),
        ({"test": "0"}, "2026-03-28T21:00:00+00:00", "2026-03-29T21:00:00+00:00"),
        # A day of 23 hours, and one of 25.
        ({"zone": "Europe/Berlin"}, "2026-03-28T23:00:00+00:00", "2026-03-29T22:00:00+00:00"),
        (
            {"zone": "Europe/Berlin", "date": "2026-10-25"},
            "2026-10-24T22:00:00+00:00",
            "2026-10-25T23:00:00+00:00",
        ),
    ],
)
def test_learning_spider_requests_its_day(arguments: dict[str, str], start: str, end: str) -> None:
    [url] = first_requests(a_spider(**arguments))
    asked = urlsplit(url)
    assert f"{asked.scheme}://{asked.netloc}{asked.path}" == f"{API}/attempts"
    assert dict(parse_qsl(asked.query)) == {
        "client": "us",
        "client_key": "a key",
        "start": start,
        "end": end,
    }


def test_invalid_date_of_the_learning_spider_is_refused() -> None:
    with pytest.raises(ValueError, match="Invalid isoformat string"):
        first_requests(a_spider(date="29.03.2026"))


@pytest.mark.parametrize(
    ("user_id", "length", "reason"),
    [
        (None, "32", "the user id is missing"),
        ("", "32", "the user id is missing"),
        ("a" * 31, "32", "the user id has 31 characters, not 32"),
        ("a" * 33, "32", "the user id has 33 characters, not 32"),
        ("a" * 32, "33", "the user id has 32 characters, not 33"),
        ("a" * 32, "32", None),
        ("я" * 33, "33", None),
        (7, "32", "Input should be a valid string"),
    ],
)
def test_user_id_has_exactly_the_given_length(
    user_id: Any, length: str, reason: str | None
) -> None:
    """The spider, with its arguments, is the validation context of the record type."""
    spider = a_spider(id_length=length)
    item = an_item(user_id=user_id)
    if reason is None:
        assert LearningAttempt.model_validate(item, context=spider).user_id == user_id
        return
    with pytest.raises(ValidationError, match=rf"user_id\n.*{reason}"):
        LearningAttempt.model_validate(item, context=spider)


@pytest.mark.parametrize(
    "field",
    ["id", "user_id", "course", "task", "attempt_type", "is_correct", "created_at"],
)
def test_learning_field_renamed_in_the_source_does_not_validate(field: str) -> None:
    spider = a_spider()
    response = page(spider, "2026-03-29.json", f"{API}/attempts")
    items = list(spider.parse(changed(response, f'"{field}"', '"renamed"')))
    ours = {"created_at": "made_at"}.get(field, field)
    for item in items:
        with pytest.raises(ValidationError, match=rf"{ours}\n  Field required"):
            LearningAttempt.model_validate(item)


def test_submission_without_a_verdict_does_not_validate() -> None:
    with pytest.raises(ValidationError, match="a submitted attempt needs is_correct"):
        LearningAttempt.model_validate(an_item(is_correct=None))
    LearningAttempt.model_validate(an_item(attempt_type="run", is_correct=None))


@pytest.mark.parametrize("body", ['{"error": "unknown client"}', "<html>", "null"])
def test_unexpected_learning_document_fails_the_load(body: str) -> None:
    response = TextResponse(API, body=body.encode(), encoding="utf-8")
    with pytest.raises(ValueError, match=r"the source has changed|Expecting value"):
        list(a_spider().parse(response))
