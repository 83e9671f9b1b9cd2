"""Outcome of an attempt, derived from its report and its limits."""

from typing import Any

import pytest

from catlog_scrapy.store.queue.report import Report, exceeds

COMPLETE: dict[str, Any] = {"accepted": 100, "responses": 100}


def judge(
    stored: int | None = None, tolerate: dict[str, Any] | None = None, **said: Any
) -> tuple[str, str | None]:
    report = Report(**{**COMPLETE, **said})
    limits = {"min_results": 1, "tolerate": tolerate or {}}
    return report.judge(limits, report.accepted if stored is None else stored)


def test_report_of_a_complete_load_is_done() -> None:
    assert judge() == ("done", None)


@pytest.mark.parametrize(
    ("said", "outcome", "reason"),
    [
        ({"reason": "shutdown"}, "failed", "closed with 'shutdown', not 'finished'"),
        ({"raised": 1, "errors": ["the spider: KeyError"]}, "failed", "the spider: KeyError"),
        ({"raised": 3, "errors": ["a: A", "b: B"]}, "failed", "a: A (and 2 more)"),
        ({"raised": 1}, "failed", "exception"),
        ({"failed_requests": 1}, "incomplete", "1 request failed, tolerated 0"),
        ({"blocked_by_robots": 1}, "incomplete", "1 request blocked by robots.txt, tolerated 0"),
        ({"rejected": 1}, "incomplete", "1 item rejected, tolerated 0"),
        ({"accepted": 0}, "incomplete", "0 results, at least 1 expected"),
        ({"stored": 99}, "incomplete", "100 results accepted, but 99 stored"),
        ({"stored": 101}, "incomplete", "100 results accepted, but 101 stored"),
    ],
)
def test_incomplete_attempt_says_why(said: dict[str, Any], outcome: str, reason: str) -> None:
    found, why = judge(**said)
    assert found == outcome
    assert why is not None
    assert reason in why


def test_outcome_names_the_first_failed_request() -> None:
    reasons = {"failed_requests": "HTTP 500 at http://a.example"}
    _, why = judge(failed_requests=2, reasons=reasons)
    assert why == "2 requests failed, tolerated 0; the first: HTTP 500 at http://a.example"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"dropped": 7}, "the project's pipelines dropped 7 items"),
        ({}, "the spider found nothing in 100 responses: a log-in page, changed pages"),
        ({"responses": 0, "stats": {"start_time": 1}}, "nothing was requested; yield requests"),
        ({"responses": 0}, "the source has little, or its pages or columns have changed"),
    ],
)
def test_missing_results_name_their_probable_cause(said: dict[str, Any], reason: str) -> None:
    assert reason in str(judge(accepted=0, **said)[1])


def test_exception_outweighs_failed_requests_and_missing_results() -> None:
    assert judge(raised=1, errors=["broken"], failed_requests=5, stored=3) == ("failed", "broken")


def test_dropped_items_are_tolerated_by_default() -> None:
    assert judge(dropped=5000) == ("done", None)
    assert judge(dropped=1, tolerate={"dropped": 0})[0] == "incomplete"


@pytest.mark.parametrize(
    "name",
    [
        "failed_requests",
        "blocked_by_robots",
        "truncated",
        "without_length",
        "rejected",
        "dropped",
    ],
)
@pytest.mark.parametrize(
    ("tolerated", "count", "outcome"),
    [
        (5, 5, "done"),
        (5, 6, "incomplete"),
        (0.2, 25, "done"),
        (0.2, 26, "incomplete"),
        (0.0, 1, "incomplete"),
    ],
)
def test_tolerance_is_a_count_or_a_share_of_all_items(
    name: str, tolerated: float, count: int, outcome: str
) -> None:
    """25 items beside 100 accepted items are a share of 0.2."""
    assert judge(tolerate={name: tolerated}, **{name: count})[0] == outcome


def test_empty_report_is_within_any_share() -> None:
    limits = {"min_results": 0, "tolerate": {"rejected": 0.0}}
    assert Report().judge(limits, 0) == ("done", None)


@pytest.mark.parametrize(
    ("count", "total", "tolerated", "too_many"),
    [(1, 1, 1.0, False), (1, 1, 1, False), (2, 2, 1, True), (2, 2, 1.0, False), (0, 0, 0, False)],
)
def test_tolerance_1_is_a_count_and_1_0_a_share(
    count: int, total: int, tolerated: float, too_many: bool
) -> None:
    assert exceeds(count, total, tolerated) is too_many
