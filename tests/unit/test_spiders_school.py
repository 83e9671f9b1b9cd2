"""School spiders: complete items, login, change feed and refused pages."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from scrapy.http import TextResponse

from catlog_scrapy.base_spiders.change_feed import ChangeFeed, plain_number
from catlog_scrapy.records import Batch, Cursor, Removed
from catlog_scrapy.spiders.school_classes import SchoolClasses
from catlog_scrapy.spiders.school_marks import SchoolMarks
from catlog_scrapy.spiders.school_organisations import SchoolOrganisations
from catlog_scrapy.spiders.school_persons import SchoolPersons
from catlog_scrapy.spiders.school_pupil_averages import SchoolPupilAverages
from catlog_scrapy.spiders.school_pupils import SchoolPupils
from tests.unit.test_spiders import PAGES, changed, first_requests, page, validated

URL = "https://school.example/school"
BEGUN = "2026-03-27T21:00:00+03:00"
SPIDERS = {
    "persons": SchoolPersons,
    "organisations": SchoolOrganisations,
    "classes": SchoolClasses,
    "pupils": SchoolPupils,
    "marks": SchoolMarks,
    "averages": SchoolPupilAverages,
}


def a_spider(kind: str, **arguments: str) -> ChangeFeed:
    return SPIDERS[kind](base_url=URL, user="u", password="p", **arguments)


def plain(results: list[Any]) -> Iterator[dict[str, Any]]:
    for one in results:
        if isinstance(one, Batch):
            yield from map(dict, one.items)
        elif isinstance(one, dict):
            yield one


def a_page(url: str, **members: Any) -> TextResponse:
    body = {"cursor": BEGUN, "total": 0, "next": None, **members}
    return TextResponse(url, body=json.dumps(body).encode(), encoding="utf-8")


@pytest.mark.parametrize("kind", SPIDERS)
def test_school_page_matches_the_golden_result(kind: str) -> None:
    spider = a_spider(kind)
    response = page(spider, f"{kind}.json", f"{URL}/{kind}")
    results = list(spider.parse(response))
    golden = json.loads((PAGES / spider.name / f"{kind}.items.json").read_text(encoding="utf-8"))
    assert validated(spider, list(plain(results))) == golden
    if kind == "organisations":  # the one that ends here
        assert results[1:] == [Cursor(BEGUN)]
    else:
        assert [one.url for one in results[1:]] == [
            f"https://school.example{response.json()['next']}"
        ]


def test_school_changes_yield_the_last_state_of_each_record() -> None:
    spider = a_spider("pupils", cursor=BEGUN)
    url = f"{URL}/pupils/changes"
    results = list(spider.parse(page(spider, "changes.json", url)))
    golden = json.loads((PAGES / spider.name / "changes.items.json").read_text(encoding="utf-8"))
    assert validated(spider, list(plain(results))) == golden
    removed = [one for one in results if isinstance(one, Removed)]
    assert removed == [Removed(number) for number in range(1, 11)]
    assert results[-1] == Cursor("2026-03-29T21:00:00+03:00")


def test_last_school_change_of_a_record_counts_over_all_pages() -> None:
    spider = a_spider("pupils", cursor=BEGUN)
    first = [
        {"op": "created", "id": 1, "data": {"id": 1, "class": 1}},
        {"op": "created", "id": 2, "data": {"id": 2}},
        {"op": "deleted", "id": 3, "data": None},
    ]
    second = [
        {"op": "updated", "id": 1, "data": {"id": 1, "class": 2}},
        {"op": "deleted", "id": 2, "data": None},
        {"op": "created", "id": 3, "data": {"id": 3}},
    ]
    (following,) = spider.parse(a_page(URL, total=6, changes=first, next="/2", cursor="then"))
    results = list(
        spider.parse(a_page(URL, total=6, changes=second, cursor="now"), **following.cb_kwargs)
    )
    nothing = {"person_id": None, "since": None}
    assert results == [
        {"id": 1, "class_id": 2, **nothing},
        Removed(2),
        {"id": 3, "class_id": None, **nothing},
        # A change made while the pages are read must not be skipped.
        Cursor("then"),
    ]


def test_empty_school_page_yields_the_cursor_only() -> None:
    spider = a_spider("pupils", cursor=BEGUN)
    assert list(spider.parse(a_page(URL, changes=[]))) == [Cursor(BEGUN)]
    spider = a_spider("pupils")
    assert list(spider.parse(a_page(URL, items=[]))) == [Cursor(BEGUN)]


@pytest.mark.parametrize(
    ("arguments", "url"),
    [
        ({}, f"{URL}/pupils?per_page=500"),
        (
            {"cursor": BEGUN},
            f"{URL}/pupils/changes?since=2026-03-27T21%3A00%3A00%2B03%3A00&per_page=500",
        ),
    ],
)
def test_school_spider_logs_in_and_requests_its_kind(arguments: dict[str, str], url: str) -> None:
    spider = a_spider("pupils", **arguments)
    assert first_requests(spider) == [f"{URL}/login"]
    (request,) = spider.logged_in(
        TextResponse(f"{URL}/login", body=b'{"token": "t1"}'), url=url, read=0
    )
    assert (request.url, request.headers[b"Authorization"]) == (url, b"Bearer t1")


def test_expired_school_token_is_renewed_once() -> None:
    spider = a_spider("pupils")
    refused = TextResponse(f"{URL}/pupils?page=2", status=401)
    (login,) = spider.parse(refused, read=500)
    assert login.url == f"{URL}/login"
    assert json.loads(login.body) == {"user": "u", "password": "p"}
    (again,) = spider.logged_in(TextResponse(login.url, body=b'{"token": "t2"}'), **login.cb_kwargs)
    assert (again.url, again.headers[b"Authorization"]) == (refused.url, b"Bearer t2")
    with pytest.raises(ValueError, match="refuses a token that the source has just issued"):
        list(spider.parse(refused, **again.cb_kwargs))
    # After a page that came, the next expiry is another one.
    third = a_page(URL, total=502, items=[{"id": 1}], next="/3")
    _, following = spider.parse(third, **again.cb_kwargs)
    assert following.cb_kwargs == {"read": 501}
    (login,) = spider.parse(refused, **following.cb_kwargs)
    assert login.url == f"{URL}/login"


def test_school_spider_without_a_password_sends_no_request() -> None:
    with pytest.raises(ValueError, match="school_pupils cannot log in; set the arguments user"):
        first_requests(SchoolPupils(base_url=URL, user="u"))


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (403, b"{}", "refuses this user and password"),
        (401, b"{}", "refuses this user and password"),
        (200, b"[]", "has no 'token': the source has changed"),
        (200, b"<html>", "Expecting value"),
    ],
)
def test_failed_school_login_fails_the_load(status: int, body: bytes, message: str) -> None:
    response = TextResponse(f"{URL}/login", status=status, body=body)
    with pytest.raises(ValueError, match=message):
        list(a_spider("pupils").logged_in(response, url=URL, read=0))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"items"', '"data"', "has no 'items': the source has changed"),
        ('"cursor"', '"until"', "has no 'cursor': the source has changed"),
        ('"next"', '"following"', "has no 'next': the source has changed"),
        ('"total"', '"count"', "has no 'total': the source has changed"),
        ('"total": 20', '"total": 21', "ends after 20 of 21 items, and its next page is None"),
    ],
)
def test_changed_school_page_fails_the_load(old: str, new: str, message: str) -> None:
    spider = a_spider("organisations")
    response = page(spider, "organisations.json", f"{URL}/organisations")
    with pytest.raises(ValueError, match=message):
        list(spider.parse(changed(response, old, new)))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"total": 1, "items": [{"id": 1}], "next": "/2"}, "ends after 1 of 1 items, and its next"),
        ({"total": 2, "items": [], "next": "/2"}, "ends after 0 of 2 items, and its next page is"),
        ({"total": 1, "items": None}, "has no array of items: the source has changed"),
        ({"total": 1, "items": [7]}, "has no array of items: the source has changed"),
    ],
)
def test_school_pages_without_end_or_entries_fail_the_load(
    members: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        list(a_spider("pupils").parse(a_page(URL, **members)))


@pytest.mark.parametrize(
    "change",
    [
        {"op": "merged", "id": 1, "data": {"id": 1}},
        {"op": "updated", "id": 1, "data": None},
        {"op": "updated", "data": {"id": 1}},
    ],
)
def test_unknown_school_change_fails_the_load(change: Any) -> None:
    spider = a_spider("pupils", cursor=BEGUN)
    with pytest.raises(ValueError, match="has a change that is not created, updated or deleted"):
        list(spider.parse(a_page(URL, total=1, changes=[change])))


@pytest.mark.parametrize(
    ("kind", "old", "new", "field"),
    [
        ("persons", "lastName", "surname", "last_name"),
        ("organisations", "timezone", "zone", "timezone"),
        ("classes", "organisation", "school", "organisation_id"),
        ("pupils", "class", "group", "class_id"),
        ("marks", "givenAt", "given", "given_at"),
        ("marks", "+03:00", "", "given_at"),
        ("marks", '"4,5"', '"four"', "value"),
        ("averages", "mean", "average", "mean"),
    ],
)
def test_changed_school_record_does_not_validate(kind: str, old: str, new: str, field: str) -> None:
    spider = a_spider(kind)
    response = changed(page(spider, f"{kind}.json", f"{URL}/{kind}"), old, new)
    with pytest.raises(ValueError, match=rf"\b{field}\n"):
        validated(spider, list(plain(list(spider.parse(response)))))


@pytest.mark.parametrize(("text", "number"), [("4,5", "4.5"), ("5", "5"), (5, 5), (None, None)])
def test_plain_number(text: Any, number: Any) -> None:
    assert plain_number(text) == number
