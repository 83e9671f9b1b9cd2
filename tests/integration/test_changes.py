"""Changes through the API: atomic, idempotent, audited."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from sqlalchemy import Engine
from starlette.requests import Request

from catlog_scrapy.api.auth.callers import Caller
from catlog_scrapy.api.changes import ChangeResult, run_change
from catlog_scrapy.api.problems import Problem
from catlog_scrapy.store.access.audit import record_audit
from catlog_scrapy.store.maintenance.prune import prune
from catlog_scrapy.store.sql import Transaction, run
from tests.support.access import a_client, given_a_user, given_access, log_in, with_token
from tests.support.factories import at_once, one, sql
from tests.support.waiting import WAIT_LIMIT_S

ALICE = Caller("user:alice", "admin", frozenset({"*:*"}), "192.0.2.1")
BOB = Caller("user:bob", "admin", frozenset({"*:*"}), "192.0.2.2")


def a_request(
    key: str | None = None, path: str = "/catalogs", method: str = "POST", query: str = ""
) -> Request:
    headers = [(b"host", b"[")]  # no host at all
    if key is not None:
        headers.append((b"idempotency-key", key.encode("latin-1")))
    return Request(
        {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query.encode(),
            "headers": headers,
            "server": ("127.0.0.1", 80),
            "scheme": "http",
        }
    )


def a_provider(name: str = "acme", **answer: Any) -> Callable[[Transaction], ChangeResult]:
    """Return a function that inserts a row with a random name that begins with *name*."""

    def work(transaction: Transaction) -> ChangeResult:
        with transaction.begin() as connection:
            run(
                connection,
                "INSERT INTO catlog.provider (name) VALUES (:name || gen_random_uuid())",
                name=name,
            )
        return ChangeResult(f"provider {name}", **{"body": {"name": name}, "status": 201, **answer})

    return work


def done(engine: Engine) -> tuple[int, int]:
    """Return the numbers of providers and of audit rows."""
    return (
        one(engine, "SELECT count(*) FROM catlog.provider"),
        one(engine, "SELECT count(*) FROM catlog.audit"),
    )


def make(
    engine: Engine,
    request: Request,
    work: Callable[[Transaction], ChangeResult] | None = None,
    body: bytes | Mapping[str, Any] | None = None,
    caller: Caller = ALICE,
) -> Any:
    return run_change(engine, request, caller, "providers:create", work or a_provider(), body=body)


def test_change_is_audited_and_its_response_is_stored(engine: Engine) -> None:
    answer = make(
        engine, a_request(), a_provider(headers={"Location": "/a"}, detail={"reason": "why not"})
    )
    assert (answer.status_code, answer.body) == (201, b'{"name":"acme"}')
    assert answer.headers["Location"] == "/a"
    [audit] = sql(engine, "SELECT * FROM catlog.audit")
    assert audit.pop("at")
    assert audit == {
        "id": 1,
        "actor": "user:alice",
        "role": "admin",
        "action": "providers:create",
        "target": "provider acme",
        "address": "192.0.2.1",
        "detail": {"reason": "why not"},
    }
    make(engine, a_request())
    assert done(engine) == (2, 2)
    assert sql(engine, "SELECT 1 FROM catlog.idempotent_request") == []


def test_repeated_idempotency_key_returns_the_stored_response(engine: Engine) -> None:
    work = a_provider(headers={"Location": "/a"})
    bodies = {"one": None, "two": b"\x00\xff", "three": {"many": [1, {"a": None}]}}
    for key, body in bodies.items():
        first = make(engine, a_request(key), work, body)
        again = make(engine, a_request(key, "/catalogs/"), work, body)
        assert (again.status_code, again.body) == (first.status_code, first.body)
        assert again.headers["Location"] == "/a"
        assert again.headers["Idempotent-Replayed"] == "true"
        assert "Idempotent-Replayed" not in first.headers
    assert done(engine) == (3, 3)


def test_stored_response_without_a_body_is_repeated_without_a_body(engine: Engine) -> None:
    for _ in range(2):
        answer = make(engine, a_request("one"), a_provider(body=None, status=204))
        assert (answer.status_code, answer.body) == (204, b"")
    assert done(engine) == (1, 1)


def test_idempotency_key_of_another_request_is_refused(engine: Engine) -> None:
    make(engine, a_request("one", query="a=1"), body={"a": 1})
    others = [
        (a_request("one", query="a=1"), {"a": 2}),
        (a_request("one", query="a=1"), {"a": "1"}),
        (a_request("one", query="a=1"), None),
        (a_request("one", query="a=1"), b"{}"),
        (a_request("one", query="a=2"), {"a": 1}),
        (a_request("one", "/others", query="a=1"), {"a": 1}),
        (a_request("one", method="PATCH", query="a=1"), {"a": 1}),
    ]
    for request, body in others:
        with pytest.raises(Problem) as problem:
            make(engine, request, body=body)
        assert problem.value.status == 422
        assert problem.value.errors[0][0] == "header.Idempotency-Key"
    assert done(engine) == (1, 1)


def test_idempotency_keys_of_callers_are_separate(engine: Engine) -> None:
    make(engine, a_request("one"))
    answer = make(engine, a_request("one"), a_provider("bobs"), caller=BOB)
    assert answer.body == b'{"name":"bobs"}'
    assert done(engine) == (2, 2)


def test_idempotency_key_has_1_to_255_printable_ascii_characters(engine: Engine) -> None:
    for wrong in ("", "a" * 256, "a" * 10**6, "a\0b", "a\nb", "caf\xe9", "\x7f"):
        with pytest.raises(Problem) as problem:
            make(engine, a_request(wrong))
        assert problem.value.status == 422
    assert done(engine) == (0, 0)
    for right in (" ", "a" * 255, "'; DROP TABLE catlog.audit; --", "%s %(a)s :name"):
        make(engine, a_request(right))
        assert make(engine, a_request(right)).headers["Idempotent-Replayed"] == "true"
    assert done(engine) == (4, 4)


def test_failed_change_leaves_nothing_and_may_be_retried(engine: Engine) -> None:
    def failing(transaction: Transaction) -> ChangeResult:
        a_provider()(transaction)
        raise Problem(409, "not now.")

    for _ in range(2):
        with pytest.raises(Problem, match="not now"):
            make(engine, a_request("one"), failing)
    assert done(engine) == (0, 0)
    assert make(engine, a_request("one")).status_code == 201
    assert done(engine) == (1, 1)


def test_response_with_status_500_is_not_stored(engine: Engine) -> None:
    make(engine, a_request("one"), a_provider(status=500))
    assert make(engine, a_request("one")).status_code == 201
    assert make(engine, a_request("one")).headers["Idempotent-Replayed"] == "true"


def test_concurrent_requests_with_one_key_change_once_and_get_one_response(engine: Engine) -> None:
    answers = at_once(*[lambda: make(engine, a_request("one"))] * 8)
    assert {answer.status_code for answer in answers} == {201}
    replayed = [answer.headers.get("Idempotent-Replayed") for answer in answers]
    assert sorted(replayed, key=str) == [None] + ["true"] * 7
    assert done(engine) == (1, 1)


def test_concurrent_request_waits_and_does_the_work_if_the_first_failed(
    engine: Engine,
) -> None:
    working, go_on = threading.Event(), threading.Event()

    def slow(transaction: Transaction) -> ChangeResult:
        a_provider()(transaction)
        working.set()
        assert go_on.wait(WAIT_LIMIT_S)
        raise Problem(503, "the first one fails.")

    def second() -> Any:
        assert working.wait(WAIT_LIMIT_S)
        threading.Timer(0.3, go_on.set).start()
        return make(engine, a_request("one"))

    def first() -> Any:
        with pytest.raises(Problem, match="the first one fails"):
            make(engine, a_request("one"), slow)

    _, answer = at_once(first, second)
    assert "Idempotent-Replayed" not in answer.headers
    assert done(engine) == (1, 1)


def test_stored_response_expires_after_a_day(engine: Engine) -> None:
    make(engine, a_request("one"))
    make(engine, a_request("two"))
    sql(
        engine,
        """UPDATE catlog.idempotent_request SET created_at = created_at - interval '25 hours'
           WHERE key = 'one'""",
    )
    answer = make(engine, a_request("one"), a_provider("another"), {"another": "request"})
    assert answer.body == b'{"name":"another"}'
    sql(engine, "UPDATE catlog.idempotent_request SET created_at = now() - interval '25 hours'")
    assert prune(engine).access == 2
    assert done(engine) == (3, 3)


def test_stored_response_is_not_shown_without_permission(engine: Engine) -> None:
    given_a_user(engine)
    client = a_client(given_access(engine))
    headers = {**with_token(log_in(client).json()["access"]), "Idempotency-Key": "one"}
    assert client.post("/catalogs/a", headers=headers).status_code == 201
    assert client.post("/catalogs/a", headers=headers).headers["Idempotent-Replayed"] == "true"
    assert client.post("/catalogs/b", headers=headers).status_code == 422
    sql(engine, "UPDATE catlog.api_user SET role = 'user'")
    answer = client.post("/catalogs/a", headers=headers)
    assert (answer.status_code, "word" in answer.text) == (403, False)


def test_audit_log_stores_any_text(engine: Engine) -> None:
    detail = {"a\0": ["\0", "\ud800", {"deep": ("\0", {1})}], "big": 10**30, "none": None}
    record_audit(
        engine, actor="a\0", action="b", target="\ud800" * 5000, address="\0", detail=detail
    )
    [row] = sql(engine, "SELECT * FROM catlog.audit")
    assert (row["actor"], row["address"], len(row["target"])) == ("a\\0", "\\0", 1000)
    assert row["detail"] == {
        "a\\0": ["\\0", "\\ud800", {"deep": ["\\0", [1]]}],
        "big": "1" + "0" * 30,
        "none": None,
    }
